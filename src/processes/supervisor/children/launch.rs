//! Starts a child for the policy, with the supervisor's resources.

use super::child::{self, ChildResources, SupervisedChild};
use super::record::Record;
use crate::supervisor::policy::Event;
use crate::supervisor::run::Supervisor;
use crate::supervisor::takeover::change::Trial;
use leoflow_base::sys::process::ProcessId;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};

impl Supervisor {
    /// Starts a child and returns `Spawned` or `SpawnFailed`.
    pub(crate) fn spawn(&mut self, index: usize) -> Event {
        let name = self.children[index].spec.plan.name;
        let started = (self.children[index].spec.launch)().and_then(|launch| {
            let resources = ChildResources {
                listeners: self.listeners(),
                arguments: self.trial_arguments(),
                lifeline: &self.resources.lifeline,
                notify_address: self.notify.address().into(),
            };
            Ok(child::start(launch, &resources, &self.children[index].log)?)
        });
        match started {
            Ok((pid, process)) => {
                self.children[index].process = process;
                self.own_log.info(format_args!("{name} started, pid {pid}"));
                self.probe_until_ready(index, pid);
                self.record(index, pid);
                Event::Spawned { index, pid }
            }
            Err(error) => {
                self.own_log.warn(format_args!("failed to start {name}: {error}"));
                Event::SpawnFailed { index, reason: error.to_string(), is_final: error.is_final() }
            }
        }
    }

    fn listeners(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let listeners = [("http", self.resources.tcp.as_fd()), ("api", self.resources.api.listener.as_fd())];
        listeners.into_iter().chain(self.change.trial.iter().flat_map(Trial::descriptors)).collect()
    }

    /// The additional arguments of a candidate server.
    fn trial_arguments(&self) -> Vec<OsString> {
        match self.change.trial {
            Some(_) => vec!["--private-socket".into(), self.home.trial_socket().into()],
            None => Vec::new(),
        }
    }

    /// Records all running children; the child at `index` has just started with the pid `pid`.
    fn record(&self, index: usize, pid: i32) {
        let entry = |(child_index, child): (usize, &SupervisedChild)| {
            let pid = if child_index == index { Some(pid) } else { self.model.pid_of(child_index) };
            Some((child.spec.plan.name.to_owned(), ProcessId::of(pid?)?))
        };
        let children = self.children.iter().enumerate().filter_map(entry).collect();
        // Without the record the next start only takes longer to find leftovers.
        let _ = Record { children }.write(&self.home);
    }
}
