//! Checks the running instance and the service that starts it.

use crate::setup::check::Check;
use crate::setup::service::{self, FileState};
use leoflow_base::home::{Home, lock};
use leoflow_base::protocol::control::StatusReply;
use leoflow_base::protocol::status::InstanceState;

/// Reports a running instance that does not work, with the reason from `lite status`, and a supervisor that does not
/// respond.
pub fn instance(home: &Home, supervisor: &StatusReply) -> Option<Check> {
    let status = match supervisor {
        StatusReply::Status(status) => status,
        StatusReply::NotListening => return None,
        StatusReply::NoAnswer => {
            let pid = lock::holder(home)?.process.pid;
            let detail = format!("the supervisor, pid {pid}, does not respond");
            return Some(Check::problem("instance", detail, "leoflow lite stop, then leoflow lite start"));
        }
    };
    let is_unwell = matches!(status.state, InstanceState::Degraded | InstanceState::Failed);
    is_unwell.then(|| {
        let reason = status.reason.clone().unwrap_or_else(|| status.state.to_string());
        Check::problem("instance", reason, "leoflow lite status, then leoflow lite logs")
    })
}

/// Checks the service that starts Leoflow at login or boot, if installed.
pub fn service(home: &Home) -> Option<Check> {
    let service = service::installed(home).ok().flatten()?;
    let reinstall = "leoflow service install";
    Some(match service.is_enabled() {
        Err(error) => Check::warning("service", format!("{}: {error}", service.unit()), "leoflow service status"),
        Ok(false) => Check::warning("service", format!("{} is disabled", service.unit()), reinstall),
        Ok(true) if service.file_state() != FileState::Ours { is_current: true } => Check::warning(
            "service",
            format!("{} differs from the file that this release writes", service.file.display()),
            reinstall,
        ),
        Ok(true) => Check::ok("service", format!("{}, {}", service.unit(), service::start_description())),
    })
}
