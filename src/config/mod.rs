//! `config.yaml`: read, checked, and changed one key at a time.

mod document;
mod edit;
mod keys;
mod load;
pub mod project;

pub use document::Problem;
pub use edit::{EditError, set_keys};
pub use keys::{DEPRECATED, Deprecated};
pub use load::{Config, ConfigError, Loaded, load, parse};

/// Where the web page is served when nothing else is said.
pub const DEFAULT_PORT: u16 = 8088;
pub const DEFAULT_ADMIN_EMAIL: &str = "admin@leoflow.local";
