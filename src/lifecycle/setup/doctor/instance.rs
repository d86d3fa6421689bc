//! Checks the running instance and the service that starts it.

use crate::setup::check::{Finding, ok, problem, warning};
use crate::setup::service::{self, FileState};
use leoflow_base::home::{Home, lock};
use leoflow_base::protocol::control::StatusReply;
use leoflow_base::protocol::status::InstanceState;

/// Reports a running instance that does not work, with the reason from `lite status`, and a supervisor that does not
/// respond.
pub fn instance(home: &Home, supervisor: &StatusReply) -> Option<Finding> {
    let status = match supervisor {
        StatusReply::Status(status) => status,
        StatusReply::NotListening => return None,
        StatusReply::NoAnswer => {
            let pid = lock::holder(home)?.process.pid;
            let detail = format!("the supervisor, pid {pid}, does not respond");
            return Some(problem(detail, "leoflow lite stop, then leoflow lite start"));
        }
    };
    let is_unwell = matches!(status.state, InstanceState::Degraded | InstanceState::Failed);
    is_unwell.then(|| {
        let reason = status.reason.clone().unwrap_or_else(|| status.state.to_string());
        problem(reason, "leoflow lite status, then leoflow lite logs")
    })
}

/// Checks the service that starts Leoflow at login or boot, if installed.
pub fn service(home: &Home) -> Option<Finding> {
    let service = service::installed(home).ok().flatten()?;
    let reinstall = "leoflow service install";
    Some(match service.is_enabled() {
        Err(error) => warning(format!("{}: {error}", service.unit()), "leoflow service status"),
        Ok(false) => warning(format!("{} is disabled", service.unit()), reinstall),
        Ok(true) if service.file_state() != FileState::Ours { is_current: true } => {
            warning(format!("{} differs from the file that this release writes", service.file.display()), reinstall)
        }
        Ok(true) => ok(format!("{}, {}", service.unit(), service::start_description())),
    })
}
