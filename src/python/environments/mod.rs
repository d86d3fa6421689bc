//! Environments of DAGs: a project's declaration, the lock it resolves to, and the folder in which it is installed.

mod airflow_versions;
mod build;
mod bytecode;
mod choice;
mod collect;
mod declared;
mod installed;
mod lock_files;
mod managed;
mod merge;
mod pins;
mod project_text;
mod python_range;
mod requirements;
mod uv;
mod uv_settings;

pub use build::{Lock, Pruning, count, find, prune, record_use};
pub use choice::{Missing, choose, choose_or_install, ensure, of_lock, renew, renew_managed};
pub(crate) use collect::collect_declared;
pub use collect::{DagLocation, listed_beside};
pub use declared::Declared;
pub(crate) use installed::has_airflow;
pub use installed::{installed, program};
pub use managed::plain as managed_plain;
pub(crate) use uv::for_tasks as uv_for_tasks;
pub use uv::{ensure as ensure_uv, find as find_uv};
