//! The server: HTTP API and web pages on the listeners that the supervisor handed over.

mod api_error;
mod app;
mod auth;
mod connections;
mod database;
mod guard;
mod health;
mod listen;
mod local;
mod pages;
mod redact;
mod request;
mod run;
mod state;
mod variables;

pub use run::{ServerError, run};
