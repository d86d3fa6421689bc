//! The loop that lets runs begin and takes each as far as it goes.

pub mod advance;
pub mod apply;
pub mod due_runs;
mod live_run;
pub mod load;
mod looks;
pub mod run;
