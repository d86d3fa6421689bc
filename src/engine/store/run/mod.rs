//! DAG runs and backfills.

pub(crate) mod active;
pub mod backfills;
pub mod deadline_lists;
pub mod deadlines;
pub mod new_run;
pub mod runs;
pub mod traces;
pub mod version_choice;
