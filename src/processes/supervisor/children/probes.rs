//! Probes children that do not send notifications.

use crate::supervisor::policy::Event;
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
        let (probe, events) = (probe.clone(), self.events.clone());
        let task = tokio::task::spawn_local(async move {
            let mut pause = FIRST_PAUSE;
            let event = loop {
                match probe().await {
                    ProbeResult::Ready => break Event::Ready { pid },
                    ProbeResult::Damaged(text) => {
                        drop(events.send(Event::Damaged { pid, text }));
                        break Event::Ready { pid };
                    }
                    ProbeResult::Unfit(reason) => break Event::Unfit { pid, reason },
                    ProbeResult::Unanswered(reason) => break Event::Unanswered { pid, reason },
                    ProbeResult::Busy(text) => drop(events.send(Event::Busy { pid, text })),
                    ProbeResult::NotYet | ProbeResult::Away(_) => {}
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            };
            drop(events.send(event));
        });
        self.children[index].set_probe(task.abort_handle());
    }

    /// Probes running children that send no heartbeat.
    pub(crate) fn probe_running(&mut self) {
        for index in 0..self.children.len() {
            let Readiness::Probe(probe) = &self.children[index].spec.readiness else { continue };
            let Phase::Running { pid, .. } = self.model.children[index].phase else { continue };
            let (probe, events) = (probe.clone(), self.events.clone());
            tokio::task::spawn_local(async move {
                match probe().await {
                    ProbeResult::Ready => drop(events.send(Event::RemoteStatus { pid, away: None })),
                    ProbeResult::Away(reason) => drop(events.send(Event::RemoteStatus { pid, away: Some(reason) })),
                    ProbeResult::Busy(_) => drop(events.send(Event::Alive { pid })),
                    ProbeResult::Damaged(text) => {
                        drop(events.send(Event::Damaged { pid, text }));
                        drop(events.send(Event::Alive { pid }));
                    }
                    ProbeResult::NotYet | ProbeResult::Unfit(_) | ProbeResult::Unanswered(_) => {}
                }
            });
        }
    }
}
