//! Settings, audit log, monitoring, plugins and providers.

pub mod config;
pub mod event_logs;
pub mod health;
pub mod monitor;
pub mod plugins;
pub mod providers;
