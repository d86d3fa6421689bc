//! What a project's DAGs need beside Python itself: what it says, what exactly that comes to, and where it is installed.

mod build;
mod choice;
mod declared;
mod python_range;
mod requirements;
mod uv;

pub use build::{Lock, count, find, installed, note_use, program, prune};
pub use choice::{choose, ensure, renew};
pub use declared::{Declared, Place, look};
pub use uv::find as find_uv;
