//! The command line: arguments, printing, and the client of the running instance.

pub mod airflow_args;
pub mod all_args;
pub mod api;
pub mod args;
pub mod asset_args;
pub mod backup_args;
pub mod complete;
mod config_args;
mod data_args;
pub mod data_migrate_args;
pub mod engine_args;
pub mod env_args;
pub mod help;
mod hitl_args;
pub mod instance_args;
mod instance_hints;
pub mod lite_args;
mod output_args;
pub mod printer;
pub mod report;
pub mod service_args;
pub mod task_args;
pub mod upgrade_args;
