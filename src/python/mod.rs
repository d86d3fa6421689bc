//! Python: finding one that can run DAGs.

mod discover;

pub use discover::{MINIMUM, Python, find};
