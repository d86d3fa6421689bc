//! Moving to and from Apache Airflow: `leoflow export airflow`, `leoflow import airflow`.

pub mod airflow_content;
mod astro_settings;
mod dag_folder;
pub mod data_files;
mod deployment;
pub mod export;
mod findings;
pub mod from_home;
mod from_url;
mod history;
pub mod import;
mod requirements;
mod secrets;

/// The Airflow version of exports: their `Dockerfile` builds on the official image of this version.
pub fn airflow_version() -> &'static str {
    leoflow_components::web_ui::version()
}
