//! DAGs, their versions, files and tasks.

pub mod dag_facts;
pub mod dag_files;
pub mod dag_versions;
pub mod dag_views;
pub mod dags;
mod operator_module;
pub mod tasks;
