//! The supervisor: one task that owns the state of every child. `policy` decides (pure), `run`
//! acts; neither knows Postgres or HTTP, `instance` describes those.

mod api_socket;
mod child;
mod control;
pub mod instance;
mod logs;
pub mod policy;
mod probes;
mod record;
mod run;
pub mod spec;
pub mod state;
mod status;
mod stop_signals;

pub use logs::{LOG_NAMES, last_lines};
pub use record::{end_leftovers, find_leftovers};
pub use run::{Identity, Notice, Supervisor, SupervisorError};
