//! Starts a child for the policy, with the supervisor's resources.

use super::child::{self, ChildResources, SupervisedChild};
use super::record::Record;
use crate::supervisor::policy::Event;
use crate::supervisor::run::Supervisor;
use crate::supervisor::takeover::change::Trial;
use leoflow_base::sys::process::ProcessId;
use leoflow_base::sys::process::spawn::SpawnError;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};

/// Why starting a child failed; `is_final` when a retry cannot help.
struct SpawnFailure {
    reason: String,
    is_final: bool,
}

impl Supervisor {
    /// Starts a child and returns `Spawned` or `SpawnFailed`.
    pub(crate) fn spawn(&mut self, index: usize) -> Event {
        let name = self.children[index].spec.plan.name;
        let launch = (self.children[index].spec.launch)().map_err(|reason| SpawnFailure { reason, is_final: false });
        let started = launch.and_then(|launch| {
            let resources = ChildResources {
                listeners: self.listeners(),
                arguments: self.trial_arguments(),
                lifeline: &self.resources.lifeline,
                notify_address: self.notify.address().into(),
            };
            let started = child::start(launch, &resources, &self.children[index].log);
            started.map_err(|error| SpawnFailure {
                is_final: matches!(error, SpawnError::UserNamespace(_)),
                reason: error.to_string(),
            })
        });
        match started {
            Ok((pid, process)) => {
                self.children[index].process = process;
                self.own_log.info(format_args!("{name} started, pid {pid}"));
                self.probe_until_ready(index, pid);
                self.record(index, pid);
                Event::Spawned { index, pid }
            }
            Err(SpawnFailure { reason, is_final }) => {
                self.own_log.warn(format_args!("failed to start {name}: {reason}"));
                Event::SpawnFailed { index, reason, is_final }
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
