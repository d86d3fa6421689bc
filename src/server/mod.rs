//! The server: HTTP API and web pages on the listeners that the supervisor handed over.

mod api_error;
mod app;
mod assets;
mod auth;
mod backfills;
mod change_feed;
mod changes;
mod child_slots;
mod connections;
mod dag_code;
mod dag_files;
mod dag_runs;
mod dags;
mod database;
mod guard;
mod health;
mod listen;
mod local;
mod logins;
mod overview;
mod pages;
mod pools;
mod redact;
mod request;
mod run;
mod slots;
mod state;
mod task_api;
mod task_instances;
mod task_logs;
mod task_runs;
mod task_views;
mod trial_task;
mod variables;
mod views;

pub use run::{Options, ServerError, run};
