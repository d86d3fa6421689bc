//! The instance: running it, looking at it, its settings, its backups.

pub mod backup;
pub mod backups;
pub mod config;
pub mod datastore;
pub mod doctor;
pub mod logs;
pub mod move_datastore;
pub mod psql;
pub mod replaced;
pub mod reset_password;
pub mod restart;
pub mod restore;
pub mod restore_present;
pub mod restore_target;
pub mod restore_undo;
pub mod run;
pub mod server_and_agent;
pub mod service;
pub mod start;
pub mod status;
pub mod stop;
pub mod verify_config;
