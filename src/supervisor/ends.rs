//! What is done when a child has ended: its last words are read before the policy is told.

use super::child;
use super::policy::Event;
use super::run::Supervisor;
use crate::sys::reaper;

impl Supervisor {
    /// Takes in the ends of all that has ended.
    pub(super) fn reap(&mut self) {
        for (pid, exit) in reaper::ended_children() {
            let Some(index) = self.index_of(pid) else {
                self.ended_aside(pid);
                continue;
            };
            if let Some(probe) = self.children[index].probe.take() {
                probe.abort();
            }
            // What the process said last may still be in the socket, from before its end.
            while let Some(notification) = self.notify.try_receive() {
                self.heard(notification);
            }
            self.own_log.info(format_args!("{} ({pid}) ended with {exit}", self.children[index].spec.plan.name));
            if let Some(output) = &self.children[index].output {
                child::drain(output, &self.children[index].log);
            }
            let words = (self.children[index].spec.words)(&self.children[index].log.borrow().last_lines());
            if let Some(words) = words.filter(|_| !exit.success()) {
                self.feed(Event::Words { pid, words });
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
