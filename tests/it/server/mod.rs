//! The server: Airflow's API and web UI, our pages, logins, DAG files.

mod api;
mod api_lists;
mod api_routes;
mod api_state_changes;
mod browser_walk;
mod clients;
mod dag_files;
mod logins;
mod monitoring;
mod newest_api;
mod own_pages;
mod passwords;
mod program_docs;
mod web_ui;
mod workspaces;
