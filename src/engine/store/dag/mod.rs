//! DAGs, their versions and environments.

pub mod callbacks;
pub mod dag_facts;
pub mod dag_fields;
pub mod dags;
pub mod environments;
pub(crate) mod failures;
pub(crate) mod next_runs;
pub mod structures;
pub mod versions;
