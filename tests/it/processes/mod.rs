//! Processes: their start and end, and their faults.

mod faults;
mod lifecycle;
mod ports;
mod system_errors;
mod task_faults;
