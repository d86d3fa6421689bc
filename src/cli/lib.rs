//! The command line: arguments, commands, and what they print. Modules are listed from the bottom up; each may use only
//! those above it in this list (checked by `tests/it/rules/architecture.rs`).

pub mod error;

pub mod args;

pub mod terminal;

mod api_client;

pub mod context;

mod airflow;

pub mod commands;
