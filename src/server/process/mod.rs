//! The server process: listeners, routes, shared state and background work.

pub(crate) mod app;
pub(crate) mod background;
pub(crate) mod change_feed;
pub(crate) mod connection_slots;
pub(crate) mod database;
pub(crate) mod deleted_logs;
pub(crate) mod health;
pub(crate) mod later_migrations;
pub(crate) mod listen;
pub(crate) mod newest_release;
pub(crate) mod own_program;
pub(crate) mod run;
pub(crate) mod settings_reload;
pub(crate) mod state;
pub(crate) mod ui_component;
pub(crate) mod upkeep;
