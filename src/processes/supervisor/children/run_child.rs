//! Starts children for the policy, probes those that send no notifications, and reaps those that have exited.

use super::child::{ChildProcess, SupervisedChild};
use super::logs::LogFile;
use super::record::Record;
use crate::supervisor::policy::{ChildEvent, Event};
use crate::supervisor::run::Supervisor;
use crate::supervisor::spec::{Launch, ProbeResult, Readiness};
use crate::supervisor::state::Phase;
use crate::supervisor::takeover::resources::Trial;
use leoflow_base::protocol::child::LIFELINE;
use leoflow_base::sys::fs::disk::{self, Shortage};
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process::ProcessId;
use leoflow_base::sys::process::reaper;
use leoflow_base::sys::process::spawn::{Spawn, SpawnError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// Pauses between two probes of a child that starts.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Free bytes that the datastore needs to start.
const NEEDED_BYTES: u64 = 48 * 1024 * 1024;

impl Supervisor {
    /// Starts a child and returns `Spawned` or `SpawnFailed`.
    pub(crate) fn spawn(&mut self, index: usize) -> Event {
        let name = self.children[index].spec.plan.name;
        let started =
            (self.children[index].spec.launch)().and_then(|launch| Ok(self.launch(launch, &self.children[index].log)?));
        match started {
            Ok((pid, process)) => {
                self.children[index].process = Some(process);
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

    /// Starts a process with the descriptors that it gets, its output going to `log`; returns its pid.
    fn launch(&self, launch: Launch, log: &Rc<RefCell<LogFile>>) -> Result<(i32, ChildProcess), SpawnError> {
        let (output, writer) = listener::pipe().map_err(SpawnError::SystemLimit)?;
        let process = ChildProcess::new(output, log).map_err(SpawnError::SystemLimit)?;
        // A shorter lifetime than 'static: that of the passed descriptors.
        let mut spawn: Spawn<'_> = launch.spawn;
        let mut names = Vec::new();
        if launch.listens {
            let listeners = [("http", self.resources.tcp.as_fd()), ("api", self.resources.api.listener.as_fd())];
            for (name, descriptor) in listeners.into_iter().chain(self.change.trial.iter().flat_map(Trial::descriptors))
            {
                names.push(name);
                spawn.passed.push(descriptor);
            }
            // A candidate server takes only this listener until its doors open.
            if self.change.trial.is_some() {
                spawn.arguments.extend(["--private-socket".into(), self.home.trial_socket().into()]);
            }
        }
        if launch.speaks_protocol {
            names.push(LIFELINE);
            spawn.passed.push(self.resources.lifeline.as_fd());
            let mut set_variable = |name: &str, value: OsString| spawn.environment.push((name.into(), value));
            set_variable("LISTEN_FDS", spawn.passed.len().to_string().into());
            set_variable("LISTEN_FDNAMES", names.join(":").into());
            // `Spawn` replaces {PID} with the child's pid.
            set_variable("LISTEN_PID", "{PID}".into());
            set_variable("NOTIFY_SOCKET", self.notify.address().into());
        }
        // An error report must not contain lines of the previous start.
        log.borrow_mut().clear_remembered_lines();
        let pid = spawn.start(writer.as_fd())?;
        Ok((pid, process))
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

    /// Probes a child until it answers: often at first, because a local start takes milliseconds.
    pub(crate) fn probe_until_ready(&mut self, index: usize, pid: i32) {
        let Readiness::Probe(probe) = &self.children[index].spec.readiness else { return };
        let (probe, send) = (probe.clone(), self.child_events(pid));
        let task = tokio::task::spawn_local(async move {
            let mut pause = FIRST_PAUSE;
            let event = loop {
                match probe().await {
                    ProbeResult::Ready => break ChildEvent::Ready,
                    ProbeResult::Damaged(text) => {
                        send(ChildEvent::Damaged(text));
                        break ChildEvent::Ready;
                    }
                    ProbeResult::Unfit(reason) => break ChildEvent::Unfit(reason),
                    ProbeResult::Unanswered(reason) => break ChildEvent::Unanswered(reason),
                    ProbeResult::Busy(text) => send(ChildEvent::Busy(text)),
                    ProbeResult::NotYet | ProbeResult::Away(_) => {}
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            };
            send(event);
        });
        if let Some(process) = &mut self.children[index].process {
            process.probe = Some(task.abort_handle());
        }
    }

    /// Probes running children that send no heartbeat.
    pub(crate) fn probe_running(&mut self) {
        for index in 0..self.children.len() {
            let Readiness::Probe(probe) = &self.children[index].spec.readiness else { continue };
            let Phase::Running { pid, .. } = self.model.children[index].phase else { continue };
            let (probe, send) = (probe.clone(), self.child_events(pid));
            tokio::task::spawn_local(async move {
                match probe().await {
                    ProbeResult::Ready => send(ChildEvent::RemoteStatus(None)),
                    ProbeResult::Away(reason) => send(ChildEvent::RemoteStatus(Some(reason))),
                    ProbeResult::Busy(_) => send(ChildEvent::Alive),
                    ProbeResult::Damaged(text) => {
                        send(ChildEvent::Damaged(text));
                        send(ChildEvent::Alive);
                    }
                    ProbeResult::NotYet | ProbeResult::Unfit(_) | ProbeResult::Unanswered(_) => {}
                }
            });
        }
    }

    /// Sends events of a child to the loop, which may have ended.
    fn child_events(&self, pid: i32) -> impl Fn(ChildEvent) + 'static {
        let events = self.events.clone();
        move |event| drop(events.send(Event::Child(pid, event)))
    }

    /// Processes all exited children. The policy first gets the reason from the child's log, then the exit.
    pub(crate) fn reap(&mut self) {
        for (pid, exit) in reaper::ended_children() {
            let Some(index) = self.index_of(pid) else {
                self.other_child_exited(pid);
                continue;
            };
            self.children[index].stop_probe();
            // The process's last notifications may still be in the socket.
            self.handle_pending_notifications();
            self.own_log.info(format_args!("{} ({pid}) exited with {exit}", self.children[index].spec.plan.name));
            self.children[index].note_exit();
            let exit_reason =
                (self.children[index].spec.find_exit_reason)(&self.children[index].log.borrow().last_lines());
            if let Some(exit_reason) = exit_reason.filter(|_| !exit.success()) {
                self.feed(Event::Child(pid, ChildEvent::ExitReason(exit_reason)));
            }
            if let Some(clean_up) = &self.children[index].spec.clean_up {
                clean_up(pid, exit);
            }
            self.feed(Event::Child(pid, ChildEvent::Exited(exit)));
        }
    }

    /// Returns `TryNow` when the disk has free space and inodes now but had not at the last check.
    pub(crate) fn check_disk_space(&mut self) -> Option<Event> {
        let data = self.home.postgres_data();
        let has_space = disk::free_bytes(&data).is_ok_and(|free| free >= NEEDED_BYTES)
            && disk::shortage(&data).is_ok_and(|shortage| shortage != Shortage::Files);
        let had_space = std::mem::replace(&mut self.has_disk_space, has_space);
        (has_space && !had_space).then_some(Event::TryNow)
    }
}
