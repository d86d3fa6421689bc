//! The command line.

mod airflow_export;
mod concurrent_commands;
mod transcripts;
mod usage;
