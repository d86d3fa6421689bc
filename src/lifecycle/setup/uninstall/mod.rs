//! Removes Leoflow's programs, or with `--purge` everything, limited to what this machine's receipt lists. The next
//! command undoes a purge that was killed before its first irreversible step; after that only another purge finishes
//! it.

mod apply;
mod plan;
mod removal;
mod repositories;
mod scan;
mod shell_files;
pub use shell_files::{MARK, SIZE_LIMIT};

pub use apply::{Resumed, may_have_removed_something, purge, remove_programs, resume_purge, workspace_left};
pub use plan::{Facts, Part, Plan, Refusal, Request, plan};
pub use removal::RemoveError;
pub use repositories::Repository;
pub use scan::{FactsError, gather};
