//! The command line.

mod airflow_export;
mod concurrent_commands;
mod json_shapes;
mod transcripts;
mod usage;
