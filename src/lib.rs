//! Leoflow Lite: Airflow-style DAGs on one laptop. Modules are listed from the bottom up; each may use only
//! those above it in this list (checked by `tests/it/architecture.rs`).

pub mod build_info;

pub mod docs;

pub mod sys;

pub mod home;

pub mod protocol;

pub mod config;

pub mod postgres;

pub mod auth;

pub mod schema;

pub mod python;

pub mod web_ui;

pub mod engine;

pub mod supervisor;

pub mod server;

pub mod agent;

pub mod backup;

pub mod setup;

pub mod upgrade;

pub mod error;

pub mod recovery;

pub mod cli;

pub mod commands;

pub mod entry;
