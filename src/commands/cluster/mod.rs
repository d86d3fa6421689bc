//! The way to Apache Airflow, and from there: `leoflow export airflow`, `leoflow import airflow`.

mod dag_folder;
mod deployment;
pub mod export;
mod findings;
mod from_home;
mod from_url;
mod history;
pub mod import;
mod requirements;
mod secrets;
mod taken;

/// What an export is made for: the official image of this version.
pub const AIRFLOW: &str = crate::web_ui::VERSION;
