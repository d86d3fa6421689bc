//! The commands on releases: upgrade, rollback, migrations.

pub mod data_migrate;
pub mod migrate_db;
pub mod packaged;
pub mod rollback;
pub mod set_channel;
pub mod smoke;
pub mod upgrade;
pub mod versions;
pub mod watch_worker;
pub mod worker;
