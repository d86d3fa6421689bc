//! The commands on DAGs, runs and tasks.

pub mod add;
pub mod assets;
pub mod backfill;
pub mod dags;
pub mod dev;
pub mod env;
pub mod environment;
mod follow_run;
pub mod foreground_planner;
pub mod foreground_run;
pub mod hitl;
pub mod init;
mod project_folder;
pub mod run_inputs;
pub mod run_view;
pub mod runs;
pub mod task_logs;
pub mod task_names;
pub mod tasks;
pub mod test;
pub mod validate;
pub mod xcom;
