//! The server process: listeners, routes and background work.

mod app;
mod background;
mod connection_slots;
mod copies;
mod later_migrations;
mod listen;
pub(crate) mod run;
mod settings_reload;
mod upkeep;
