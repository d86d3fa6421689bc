//! Reaps exited children. The policy first gets the reason from the child's log, then the exit.

use crate::supervisor::policy::Event;
use crate::supervisor::run::Supervisor;
use leoflow_base::sys::process::{self, Signal, reaper};
use leoflow_python::{TASK_MARK, is_parse_mark};
use std::time::{Duration, Instant};

impl Supervisor {
    /// Processes all exited children.
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
                self.feed(Event::ExitReason { pid, exit_reason });
            }
            if !exit.success()
                && let Some(clean_up) = &self.children[index].spec.clean_up
            {
                clean_up();
            }
            self.feed(Event::Exited { pid, exit });
        }
    }
}

/// How long processes are killed that start new ones.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two rounds; shorter than the life of a process in a chain of them.
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// Kills what DAG files left running at their import when the server ended before it could: such processes are adopted
/// by this one. Tasks, which outlive the supervisor, have other marks.
pub(crate) fn end_dag_file_processes() {
    let deadline = Instant::now() + KILL_LIMIT;
    while Instant::now() < deadline {
        let is_of_dag_file = |pid: &i32| process::variable_of(*pid, TASK_MARK).is_some_and(|mark| is_parse_mark(&mark));
        let remaining: Vec<i32> = process::children().into_iter().filter(is_of_dag_file).collect();
        if remaining.is_empty() {
            return;
        }
        remaining.into_iter().for_each(|pid| process::signal_process(pid, Signal::Kill));
        std::thread::sleep(KILL_PAUSE);
        reaper::ended_children();
    }
}
