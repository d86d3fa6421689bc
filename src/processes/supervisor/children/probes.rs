//! Probes children that do not send notifications.

use crate::supervisor::policy::{ChildEvent, Event};
use crate::supervisor::run::Supervisor;
use crate::supervisor::spec::{ProbeResult, Readiness};
use crate::supervisor::state::Phase;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl Supervisor {
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
        self.children[index].set_probe(task.abort_handle());
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
}
