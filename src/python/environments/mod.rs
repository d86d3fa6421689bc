//! What a project's DAGs need beside Python itself: what it says, what exactly that comes to, and where it is installed.

mod airflow_versions;
mod build;
mod bytecode;
mod choice;
mod declared;
mod installed;
mod lock_files;
mod managed;
mod pins;
mod project_text;
mod python_range;
mod requirements;
mod uv;
mod uv_settings;

pub use build::{Lock, count, find, note_use, prune};
pub use choice::{Missing, choose, choose_or_get, ensure, of_lock, renew, renew_managed};
pub use declared::{Declared, Place, listed_beside, look};
pub use installed::{has_airflow, installed, program};
pub use managed::plain as managed_plain;
pub use uv::{find as find_uv, get as get_uv, of_tasks as uv_of_tasks};
