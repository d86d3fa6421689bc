//! The commands on DAGs, runs and tasks.

pub mod add;
pub mod assets;
pub mod backfill;
pub mod dags;
pub mod env;
pub mod environment;
pub mod foreground_planner;
pub mod foreground_run;
pub mod hitl;
pub mod init;
pub mod run_inputs;
mod project_folder;
pub mod run_view;
pub mod runs;
pub mod task_logs;
pub mod task_names;
pub mod tasks;
pub mod validate;
pub mod xcom;
