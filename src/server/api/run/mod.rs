//! DAG runs and backfills.

pub mod backfills;
pub mod clear_runs;
pub mod dag_run_lists;
pub mod dag_run_wait;
pub mod dag_runs;
pub mod dag_runs_bulk;
mod partition_selector;
pub mod rerun_version;
