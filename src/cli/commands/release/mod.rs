//! The commands on releases: upgrade, rollback, migrations.

mod apply_plan;
pub mod data_migrate;
mod hand_over;
pub mod later_migrations;
pub mod migrate_db;
pub mod packaged;
pub mod rollback;
pub mod rollback_args;
pub mod rollback_consequences;
pub mod rollback_facts;
pub mod rollback_restore;
pub mod set_channel;
pub mod smoke;
pub mod upgrade;
pub mod upgrade_args;
pub mod upgrade_facts;
pub mod upgrade_install;
pub mod upgrade_worker;
pub mod versions;
pub mod watch_worker;
pub mod worker_report;
