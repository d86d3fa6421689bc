//! Task instances, their tries, and the values that tasks store.

pub mod backlog;
pub mod claimed;
pub mod clear;
pub mod grid;
pub mod hitl;
pub mod instances;
pub mod iterations;
pub mod mark;
pub mod planner_input;
pub(crate) mod relatives;
pub(crate) mod scheduled;
pub mod sdk_queries;
pub mod states;
pub mod tries;
pub mod triggers;
pub mod xcoms;
