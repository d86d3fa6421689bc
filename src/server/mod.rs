//! The server: HTTP API and web pages on the listeners that the supervisor handed over.

mod api;
mod api_error;
mod app;
mod audit;
mod auth;
mod background;
mod body;
mod bulk;
mod bulk_keyed;
mod caller;
mod change_feed;
mod child_slots;
mod connection_slots;
mod dag_code;
mod dag_files;
mod database;
mod environments;
mod guard;
mod health;
mod listen;
mod listing;
mod lite;
mod logins;
mod provider_cache;
mod providers;
mod questions;
mod request;
mod revoked;
mod run;
mod state;
mod task;
mod ui;
mod ui_component;

pub use run::{Options, ServerError, run};
