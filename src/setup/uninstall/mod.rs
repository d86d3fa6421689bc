//! Removing Leoflow: what can be had again, or with `--purge` everything, and only what this machine's
//! receipt says is ours. Killed anywhere, the next uninstall, or the next start, finishes it.

mod apply;
mod look;
mod plan;
mod repositories;
mod shell_files;
pub use shell_files::MARK;

pub use apply::{RemoveError, Resumed, has_begun, purge, remove_programs, resume_purge};
pub use look::{FactsError, gather};
pub use plan::{Facts, Part, Plan, Refusal, Wishes, plan};
pub use repositories::Repository;
