//! The commands on backups, and those that move data: backup, restore, move-datastore.

pub mod backups;
pub mod create;
pub mod move_datastore;
pub mod restore;
pub mod restore_args;
pub mod restore_report;
pub mod verify_backups;
