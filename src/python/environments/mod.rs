//! What a project's DAGs need beside Python itself: what it says, what exactly that comes to, and where it is installed.

mod build;
mod bytecode;
mod choice;
mod declared;
mod installed;
mod python_range;
mod requirements;
mod uv;

pub use build::{Lock, count, find, note_use, prune};
pub use choice::{choose, ensure, renew};
pub use declared::{Declared, Place, look};
pub use installed::{has_airflow, installed, program};
pub use uv::{find as find_uv, get as get_uv, of_tasks as uv_of_tasks};
