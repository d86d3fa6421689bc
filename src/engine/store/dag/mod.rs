//! DAGs, their versions and environments.

pub mod callbacks;
pub mod dag_facts;
pub mod dags;
pub mod environments;
pub mod import_errors;
pub(crate) mod next_runs;
pub mod parsed_files;
pub mod structures;
pub mod versions;
