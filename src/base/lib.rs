//! What every layer of Leoflow uses: the operating system, the home of an instance with its settings and secrets, and
//! the messages between its processes. Modules are listed from the bottom up; each may use only those above it in this
//! list (checked by `tests/it/rules/architecture.rs`).

pub mod counted;

pub mod airflow_minors;

pub mod words;

pub mod docs;

pub mod build_info;

pub mod sys;

pub mod home;

pub mod protocol;

pub mod config;

pub mod auth;
