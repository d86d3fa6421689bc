//! Decides the next state transitions of a run's task instances. Pure.

pub(crate) mod competition;
pub mod graph;
#[cfg(test)]
mod loop_tests;
#[cfg(test)]
mod mapping_tests;
pub mod pass_view;
pub mod plan;
pub mod pool_limits;
pub mod relevant_instances;
pub mod retry;
pub mod rules;
pub mod snapshot;
mod unrolled;
mod waits;
