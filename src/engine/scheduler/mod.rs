//! The scheduling loop: creates and starts runs, and advances each run as far as it can go.

pub mod advance;
pub mod apply;
pub mod due_runs;
mod file_sensors;
mod live_run;
pub mod load;
pub mod run;
