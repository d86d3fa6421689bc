//! What happens next to the tasks of a run. Pure.

pub mod concurrency;
pub mod graph;
pub mod look;
pub mod plan;
pub mod retry;
pub mod rules;
pub mod snapshot;
