//! What happens next to the tasks of a run. Pure.

pub mod concurrency;
pub mod graph;
pub mod pass_view;
pub mod plan;
pub mod retry;
pub mod rules;
pub mod snapshot;
mod waits;
