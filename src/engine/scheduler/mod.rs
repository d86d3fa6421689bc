//! The scheduling loop: creates and starts runs, and advances each run as far as it can go.

pub mod advance;
pub mod apply;
mod cache;
pub mod due_runs;
mod episodes;
mod file_sensors;
mod live_run;
pub mod past;
pub mod run;
pub mod totals;
