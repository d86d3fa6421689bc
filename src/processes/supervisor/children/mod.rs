//! The children of the supervisor: their start, logs, probes and end.

pub(crate) mod api_socket;
pub(crate) mod child;
pub(crate) mod dag_file_processes;
pub(crate) mod logs;
pub(crate) mod record;
pub(crate) mod run_child;
