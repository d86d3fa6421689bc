//! DAGs, their versions, files and tasks.

pub mod dag_bundles;
pub mod dag_facts;
pub mod dag_files;
pub mod dag_version_diff;
pub mod dag_versions;
pub mod dag_views;
pub mod dags;
pub mod dags_bulk;
mod operator_module;
pub mod tasks;
