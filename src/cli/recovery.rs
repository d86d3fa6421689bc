//! Names of `lifecycle::operation::open` for the commands that use them.

pub use leoflow_lifecycle::operation::open::{
    Abort, AfterUpgrade, InstalledRelease, claims, interrupted_upgrade, refuse_during_rollback, report_conflicts,
    rollback_record,
};
pub use leoflow_lifecycle::operation::{DryRun, OperationContext as Recovery};

pub mod datastore {
    use crate::error::Error;
    use leoflow_lifecycle::operation::OperationError;
    pub use leoflow_lifecycle::operation::open::datastore::{Datastore, check};

    /// The error of every command that needs a home.
    pub(crate) fn not_set_up() -> Error {
        OperationError::NotSetUp.into()
    }
}
