//! Leoflow's processes and tasks: start, stop, kills, freezes and system errors.

mod faults;
mod lifecycle;
mod ports;
mod system_errors;
mod task_faults;
