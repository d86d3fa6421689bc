//! The commands on the installation: setup, upgrade, rollback, uninstall.

pub mod completions;
pub mod data_migrate;
pub mod every_instance;
pub mod instances;
mod later_migrations;
pub mod migrate_db;
pub mod operation;
pub mod rollback;
mod rollback_consequences;
mod rollback_facts;
mod rollback_restore;
pub mod set_channel;
pub mod setup;
pub mod smoke;
mod target_release;
pub mod uninstall;
pub mod upgrade;
pub mod upgrade_facts;
pub mod upgrade_install;
pub mod upgrade_worker;
pub mod version;
pub mod versions;
pub mod watch_worker;
