//! DAG runs and backfills.

pub mod backfill_end;
pub mod backfills;
pub mod lengths;
pub mod new_run;
pub mod other_runs;
pub mod run_list;
pub mod runs;
