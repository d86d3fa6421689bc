//! The protocols between processes: how the supervisor starts children and is notified by them, and what the control
//! socket answers. Documented in `docs/reference/process-protocol.md`. An old supervisor starts new servers, so nothing
//! here may change its meaning. `web` is for external servers.

pub mod child;
pub mod control;
pub mod http;
pub mod log;
pub mod own_command;
pub mod status;
pub mod task_log;
pub mod web;
