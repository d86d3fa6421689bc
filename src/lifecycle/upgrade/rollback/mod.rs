//! Rollbacks to an earlier release.

pub mod capacity;
pub mod expire;
pub mod history;
pub mod rollback_plan;
pub mod rollback_record;
pub mod snapshot;
pub mod target;
pub(super) mod undo_migrations;
