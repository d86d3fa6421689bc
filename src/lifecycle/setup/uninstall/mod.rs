//! Removes Leoflow's programs, or with `--purge` also its data and the workspace in the receipt. If a purge is killed
//! before its first irreversible step, the next command undoes it; otherwise only another purge can finish it.

mod apply;
mod operation;
mod plan;
mod removal;
mod repositories;
mod scan;
mod shell_files;
pub use shell_files::{MARK, SIZE_LIMIT};

pub(crate) use apply::workspace_not_restored;
pub use apply::{Resumed, may_have_removed_something, resume_purge};
pub use operation::{HomeState, apply, find, plan_of, remove_empty};
pub use plan::{Part, Request, UninstallPlan, UninstallRefusal};
pub use removal::RemoveError;
pub use repositories::Repository;
