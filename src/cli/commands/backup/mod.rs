//! The commands on backups, and those that move data: backup, restore, move-datastore.

pub mod backups;
pub mod create;
pub mod current_state;
pub mod move_datastore;
pub mod restore;
pub mod restore_args;
pub mod restore_report;
pub mod restore_target;
pub mod restore_undo;
pub mod state_summary;
pub mod verify_backups;

use crate::error::Error;
use crate::recovery::datastore::Datastore;

/// Replaces an error that the running instance's stop or restart has caused, because its datastore stops with it.
pub(crate) fn explain(datastore: &Datastore, error: Error) -> Error {
    match datastore.end_of_instance() {
        None => error,
        Some(event) => {
            Error::failed(format!("Leoflow was {event} meanwhile, and with it the datastore that this command used"))
                .cause(error.in_one_line())
                .hint("rerun the same command")
        }
    }
}
