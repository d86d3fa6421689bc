//! The supervisor: one task that owns the state of every child. `policy` decides (pure), `run`
//! acts; neither knows Postgres or HTTP, `instance` describes those.

mod api_socket;
mod begin;
mod change;
mod child;
mod control;
mod ends;
mod event;
mod handover;
pub mod instance;
mod levels;
mod limits;
mod logs;
pub mod policy;
mod probes;
mod record;
mod room;
mod run;
pub mod spec;
pub mod state;
mod status;
mod stop_signals;

pub use handover::{HandoverError, Inherited};
pub use logs::{LOG_NAMES, last_lines};
pub use record::{end_leftovers, find_leftovers};
pub use run::{Identity, Notice, Supervisor, SupervisorError};
