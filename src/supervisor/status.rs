//! What is told of the state: for `lite status`, the page, systemd.

use super::policy::{Model, Overall};
use super::run::Supervisor;
use super::state::Phase;
use crate::protocol::status::{InstanceState, InstanceStatus, ProcessStatus};
use crate::sys::process;

impl Supervisor {
    pub(super) fn status(&self) -> InstanceStatus {
        let state = match self.model.overall() {
            Overall::Healthy => InstanceState::Healthy,
            Overall::Starting => InstanceState::Starting,
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
            reason: if state == InstanceState::Healthy { None } else { reason(&self.model) },
            detached: self.identity.detached,
            pid: std::process::id() as i32,
        }
    }

    fn processes(&self) -> Vec<ProcessStatus> {
        let own = std::process::id() as i32;
        let supervisor = ProcessStatus {
            name: "supervisor".to_owned(),
            state: "running".to_owned(),
            pid: Some(own),
            restarts: 0,
            rss_bytes: process::resident_bytes(own),
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
                _ => child.detail.clone(),
            },
        });
        std::iter::once(supervisor).chain(child_status).collect()
    }
}

/// Why it is not healthy, in one line.
pub(super) fn reason(model: &Model) -> Option<String> {
    let told = model.children.iter().find_map(|child| match &child.phase {
        Phase::Failed { reason } => Some(format!("{} failed: {reason}", child.plan.name)),
        _ => None,
    });
    told.or_else(|| {
        model.children.iter().find_map(|child| match &child.phase {
            Phase::Running { .. } | Phase::Done => None,
            _ => Some(match (&child.last_exit, &child.detail) {
                (_, Some(detail)) => format!("{} is {detail}", child.plan.name),
                (Some(exit), None) => format!("{} ended with {exit}, starting it again", child.plan.name),
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
