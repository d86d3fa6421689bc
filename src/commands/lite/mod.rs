//! The commands on an instance: running it, its status, its settings, its backups.

pub mod agent;
pub mod backup;
pub mod backups;
pub mod config;
pub mod current_state;
pub mod datastore;
pub mod doctor;
pub mod logs;
pub mod move_datastore;
pub mod psql;
pub mod reset_password;
pub mod restart;
pub mod restore;
pub mod restore_target;
pub mod restore_undo;
pub mod run;
pub mod service;
pub mod start;
pub mod state_summary;
pub mod status;
pub mod stop;
pub mod verify_config;
