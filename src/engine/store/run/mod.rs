//! DAG runs and backfills.

pub(crate) mod active;
pub mod backfill_end;
pub mod backfills;
pub mod lengths;
pub mod new_run;
pub mod other_runs;
pub(crate) mod past;
pub mod run_fields;
pub mod runs;
pub mod version_choice;
