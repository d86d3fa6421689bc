//! Reaps exited children. The policy first gets the reason from the child's log, then the exit.

use crate::supervisor::policy::{ChildEvent, Event};
use crate::supervisor::run::Supervisor;
use leoflow_base::sys::process::reaper;

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
                self.feed(Event::Child(pid, ChildEvent::ExitReason(exit_reason)));
            }
            if !exit.success()
                && let Some(clean_up) = &self.children[index].spec.clean_up
            {
                clean_up();
            }
            self.feed(Event::Child(pid, ChildEvent::Exited(exit)));
        }
    }
}
