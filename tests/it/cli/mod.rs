//! The command line.

mod airflow_export;
mod airflow_words;
mod bring;
mod concurrent_commands;
mod home_option;
mod json_shapes;
mod transcripts;
mod usage;
