//! Operating system interfaces and all `unsafe` code. Everything specific to Linux is here, so that porting to another
//! platform means porting this folder.

pub mod blocking;
pub mod browser;
pub mod checkpoint;
pub mod clock;
pub mod env_vars;
pub mod fs;
pub mod mutex;
pub mod net;
mod poll;
pub mod process;
pub mod random;
pub mod shell;
pub mod terminal;
pub mod transient;
pub mod user;

pub use checkpoint::{checkpoint, limit, may_fail};
