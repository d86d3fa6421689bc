//! What the processes say to one another: how the supervisor starts a child and hears from it, and
//! what the control socket answers. Described in `docs/process-protocol.md`; an old supervisor
//! starts new servers, so nothing here may change its meaning. `web` is for servers that are not ours.

pub mod child;
pub mod control;
pub mod http;
pub mod log;
pub mod own_command;
pub mod status;
pub mod task_log;
pub mod web;
