//! What every layer of Leoflow uses: the operating system, the home of an instance with its settings and secrets, the
//! messages between its processes, and the components that it downloads. Modules are listed from the bottom up; each
//! may use only those above it in this list (checked by `tests/it/rules/architecture.rs`).

pub mod counted;

pub mod docs;

pub mod build_info;

pub mod sys;

pub mod home;

pub mod protocol;

pub mod config;

pub mod auth;

pub mod components;

pub mod web_ui;

pub mod template_value;
