//! Removing Leoflow: what can be had again, or with `--purge` everything, and only what this machine's
//! receipt says is ours. A purge that is killed before its first irreversible step is taken back by the next command; after
//! it only the next purge finishes it.

mod apply;
mod look;
mod plan;
mod repositories;
mod shell_files;
pub use shell_files::{MARK, SIZE_LIMIT};

pub use apply::{RemoveError, Resumed, has_begun, purge, remove_programs, resume_purge, workspace_left};
pub use look::{FactsError, gather};
pub use plan::{Facts, Part, Plan, Refusal, Wishes, plan};
pub use repositories::Repository;
