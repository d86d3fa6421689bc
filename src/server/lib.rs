//! The server: HTTP API and web pages on the listeners that the supervisor handed over.

mod api;
mod dag_code;
mod dag_files;
mod environments;
mod http;
mod lite;
mod login;
mod process;
mod task;
mod ui;

pub use http::docs::openapi_document;
pub use process::run::{Options, ServerError, run};
