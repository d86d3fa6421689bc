//! The commands on the installation and on instances: setup, uninstall, instances, version.

mod backup_progress;
pub mod completions;
pub mod creation;
pub mod every_instance;
mod instance_command;
pub mod instances;
pub mod operation;
pub mod setup;
pub mod uninstall;
pub mod version;
