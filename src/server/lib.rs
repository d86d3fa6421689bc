//! The server: HTTP API and web pages on the listeners that the supervisor handed over.

mod api;
mod app_state;
mod dag_code;
mod dag_files;
mod environments;
mod history;
mod http;
mod lite;
mod login;
mod notify;
mod pages;
mod process;
mod release;
mod state;
mod task;
mod telemetry;
mod ui;

pub use api::docs::openapi_document;
pub use lite::docs_html;
pub use process::run::{Options, ServerError, run};
