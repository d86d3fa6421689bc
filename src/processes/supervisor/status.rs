//! Reports the state: to the terminal, to systemd, to `lite status` and to the web page.

use super::policy::{ChildEvent, Event, Model, Overall};
use super::run::{Notice, Supervisor, SupervisorError};
use super::state::{ChildState, Phase};
use leoflow_base::protocol::control::Answer;
use leoflow_base::protocol::status::{InstanceState, InstanceStatus, ProcessStatus};
use leoflow_base::sys::process;
use leoflow_postgres::fatal_message;
use std::time::{Duration, Instant};

/// A start is reported as busy once it has taken longer than this.
const MIN_BUSY_TIME: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Reports why a child's start takes long, once for each new text.
    pub(super) fn report_busy(&self, event: &Event, on_notice: &mut dyn FnMut(Notice)) {
        if let Event::Child(pid, ChildEvent::Busy(text)) = event
            && let Some(index) = self.index_of(*pid)
            && self.model.children[index].report.detail.as_ref() != Some(text)
            && matches!(self.model.children[index].phase, Phase::Starting { begun, .. } if begun.elapsed() > MIN_BUSY_TIME)
        {
            on_notice(Notice::Busy(format!("{} is {text}", self.children[index].spec.plan.name)));
        }
    }

    pub(super) fn report_change(&mut self, before: Overall, after: Overall, on_notice: &mut dyn FnMut(Notice)) {
        if before == after {
            return;
        }
        self.own_log.info(format_args!("{after:?}"));
        match after {
            Overall::Healthy => {
                self.systemd.ready(&format!("serving {}", self.identity.url));
                let is_first = !std::mem::replace(&mut self.announced, true);
                on_notice(if is_first { Notice::Healthy } else { Notice::Recovered });
            }
            Overall::Degraded | Overall::Failed => {
                let reason = reason(&self.model).unwrap_or_default();
                self.systemd.status(&reason);
                on_notice(Notice::Trouble(reason));
            }
            Overall::Stopping | Overall::Stopped if begins_to_stop(before) => {
                self.systemd.stopping();
                // The error of a failed start follows.
                if self.model.start_failure.is_none() {
                    on_notice(Notice::Stopping);
                }
            }
            Overall::Stopping | Overall::Stopped => {}
            Overall::Switching => self.systemd.status("upgrading"),
            Overall::Starting | Overall::Held => {}
        }
    }

    /// Answers the clients that wait for a restart or a level, once that is reached or has failed, even if it was
    /// reached before the request.
    pub(super) fn answer_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let answer = match self.model.overall() {
            Overall::Healthy | Overall::Held => Answer::Accepted,
            Overall::Failed => Answer::Error(self.failure_of_request()),
            Overall::Stopping | Overall::Stopped => Answer::Error("the instance is stopping".to_owned()),
            // A blocked or crash-looping child may take arbitrarily long to start.
            _ if self.model.blocked().is_some() || self.model.looping().is_some() => {
                Answer::Error(self.failure_of_request())
            }
            Overall::Starting | Overall::Degraded | Overall::Switching => return,
        };
        for waiter in self.waiters.drain(..) {
            // The client may have disconnected.
            let _ = waiter.send(answer.clone());
        }
    }

    pub(super) fn status(&self) -> InstanceStatus {
        let damage = self.model.children.iter().find_map(|child| child.report.damage.clone());
        let away = self.model.children.iter().find_map(|child| child.report.away.clone());
        let state = match self.model.overall() {
            Overall::Healthy if away.is_some() => InstanceState::Degraded,
            Overall::Healthy if damage.is_some() => InstanceState::Damaged,
            Overall::Healthy => InstanceState::Healthy,
            Overall::Starting => InstanceState::Starting,
            Overall::Switching | Overall::Held => InstanceState::Upgrading,
            Overall::Degraded | Overall::Stopping => InstanceState::Degraded,
            Overall::Failed => InstanceState::Failed,
            Overall::Stopped => InstanceState::Stopped,
        };
        InstanceStatus {
            state,
            version: self.identity.version.clone(),
            url: self.identity.url.clone(),
            home: self.home.root().display().to_string(),
            schema_version: self.schema_version,
            uptime_seconds: self.started.elapsed().as_secs(),
            processes: self.processes(),
            reason: match state {
                InstanceState::Healthy => None,
                InstanceState::Damaged => damage,
                InstanceState::Degraded if away.is_some() => away,
                _ => reason(&self.model),
            },
            detached: self.identity.detached,
            backups: None,
            needs_restart: Vec::new(),
            // Clients read the journal themselves.
            change: None,
            pid: std::process::id() as i32,
        }
    }

    fn processes(&self) -> Vec<ProcessStatus> {
        let own_pid = std::process::id() as i32;
        let supervisor = ProcessStatus {
            name: "supervisor".to_owned(),
            state: "running".to_owned(),
            pid: Some(own_pid),
            restarts: 0,
            rss_bytes: process::resident_bytes(own_pid),
            detail: None,
        };
        let services = self.model.children.iter().filter(|child| !child.plan.one_shot);
        let child_status = services.map(|child| ProcessStatus {
            name: child.plan.name.to_owned(),
            state: phase_name(&child.phase).to_owned(),
            pid: child.phase.pid(),
            restarts: child.restarts,
            rss_bytes: child.phase.pid().and_then(process::resident_bytes),
            detail: match &child.phase {
                Phase::Failed { reason } => Some(reason.clone()),
                _ => child.report.detail.clone(),
            },
        });
        std::iter::once(supervisor).chain(child_status).collect()
    }

    /// The failed child's own error as JSON, or else a description as plain text.
    pub(super) fn failure_of_request(&self) -> String {
        let failed = self.model.children.iter().find(|child| matches!(child.phase, Phase::Failed { .. }));
        let failed_or_looping = failed.or_else(|| self.model.looping());
        failed_or_looping
            .and_then(|child| child.report.failure.clone())
            .or_else(|| reason(&self.model))
            .unwrap_or_default()
    }

    /// The result of the run; `stopping_signal` is the number of the signal that requested an immediate stop, if any.
    pub(super) fn outcome(&self, stopping_signal: Option<i32>) -> Result<(), SupervisorError> {
        if let Some(index) = self.model.start_failure {
            let child = &self.model.children[index];
            let Phase::Failed { reason } = &child.phase else { return Err(SupervisorError::StoppedEarly) };
            return Err(SupervisorError::Start {
                process: child.plan.name,
                reason: reason.clone(),
                unfit: child.unfit,
                failure: child.report.failure.clone(),
                last_lines: fatal_message::without_bad_advice(self.children[index].log.borrow().last_lines()),
            });
        }
        match stopping_signal {
            Some(signal) => Err(SupervisorError::StoppedAtOnce { signal }),
            None if !self.model.was_healthy() => Err(SupervisorError::StoppedEarly),
            None => Ok(()),
        }
    }
}

/// True if a stop after the state `before` is a new one, which is reported once.
fn begins_to_stop(before: Overall) -> bool {
    !matches!(before, Overall::Stopping | Overall::Stopped)
}

/// Why the instance is not healthy, in one line.
pub(super) fn reason(model: &Model) -> Option<String> {
    let failed = model.children.iter().find_map(|child| match &child.phase {
        Phase::Failed { reason } => {
            Some(format!("{} failed: {}", child.plan.name, failure_message(child).unwrap_or_else(|| reason.clone())))
        }
        _ => None,
    });
    let blocked = || {
        let child = model.blocked()?;
        Some(format!("{} is down: {}", child.plan.name, child.report.exit_reason.as_ref()?.text))
    };
    let looping = || {
        let child = model.looping()?;
        let (name, trouble) = (child.plan.name, child.trouble(Instant::now())?);
        Some(match failure_message(child) {
            Some(message) => format!("{name} keeps exiting: {message}; {trouble}"),
            None => format!("{name} keeps exiting: {trouble}"),
        })
    };
    failed.or_else(blocked).or_else(looping).or_else(|| {
        model.children.iter().find_map(|child| match &child.phase {
            Phase::Running { .. } | Phase::Done => None,
            _ => Some(match (&child.last_exit, &child.report.detail) {
                (_, Some(detail)) => format!("{} is {detail}", child.plan.name),
                (Some(exit), None) => format!("{} exited with {exit}, restarting", child.plan.name),
                (None, None) => format!("{} is starting", child.plan.name),
            }),
        })
    })
}

fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Starting { .. } => "starting",
        Phase::Running { .. } => "running",
        Phase::Backoff { .. } => "restarting",
        Phase::Stopping { .. } => "stopping",
        Phase::Stopped => "stopped",
        Phase::Done => "done",
        Phase::Failed { .. } => "failed",
    }
}

/// The message in the error that a child reported before its exit.
fn failure_message(child: &ChildState) -> Option<String> {
    let failure: serde_json::Value = serde_json::from_str(child.report.failure.as_ref()?).ok()?;
    Some(failure.get("message")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_reported_once() {
        let states = [Overall::Starting, Overall::Healthy, Overall::Stopping, Overall::Stopped];
        assert_eq!(states.map(begins_to_stop), [true, true, false, false]);
    }
}
