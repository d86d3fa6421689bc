//! The supervisor: one task that owns the state of every child. `policy` decides (pure) and `run` acts; neither knows
//! Postgres or HTTP, which `instance` describes.

mod api_socket;
mod change;
mod child;
mod control;
mod disk_space;
mod event;
mod handover;
pub mod instance;
mod levels;
mod limits;
mod logs;
pub mod policy;
mod probes;
mod reap;
mod record;
mod run;
pub mod spec;
mod startup;
pub mod state;
mod status;
mod stop_signals;

pub use handover::{HandoverError, Inherited};
pub use logs::{LOG_NAMES, last_lines};
pub use record::{end_leftovers, find_leftovers};
pub use run::{Identity, Notice, Supervisor, SupervisorError};
