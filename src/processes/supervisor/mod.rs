//! The supervisor: one task that owns the state of every child. `policy` and `restart` decide (pure) and `run` acts; neither knows
//! Postgres or HTTP, which `instance` describes.

mod children;
mod control;
mod event;
pub mod instance;
mod levels;
mod own_pause;
pub mod policy;
mod restart;
mod run;
pub mod spec;
pub mod state;
mod status;
mod stop_signals;
mod takeover;

pub use children::logs::{LOG_NAMES, last_lines};
pub use children::record::{end_leftovers, find_leftovers};
pub use run::{Identity, Notice, Supervisor, SupervisorError};
pub use takeover::handover::{HandoverError, Inherited};
