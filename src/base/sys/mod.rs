//! Operating system interfaces and all `unsafe` code. Everything specific to Linux or macOS is here. What only Linux has
//! also exists in a portable form, see [`is_portable`].

pub mod blocking;
pub mod browser;
pub mod checkpoint;
pub mod clock;
pub mod env_vars;
pub mod fs;
pub mod mutex;
pub mod net;
mod poll;
mod portable;
pub mod process;
pub mod random;
pub mod shell;
pub mod terminal;
pub mod transient;
pub mod user;

pub use checkpoint::{checkpoint, limit, may_fail};
pub use portable::is_portable;
