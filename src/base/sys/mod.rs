//! Operating system interfaces and all `unsafe` code. Everything specific to Linux is here, so that porting to another
//! platform means porting this folder.

pub mod beneath;
pub mod blocking;
pub mod browser;
pub mod checkpoint;
pub mod clock;
pub mod command;
pub mod disk;
pub mod disk_usage;
pub mod env_vars;
pub mod files;
pub mod flock;
pub mod free_memory;
pub mod limits;
pub mod listener;
pub mod memory;
pub mod mounts;
pub mod notify;
pub mod pidfd;
pub mod ports;
pub mod process;
pub mod process_memory;
pub mod processor;
pub mod random;
pub mod reaper;
pub mod replace;
pub mod seqpacket;
pub mod signals;
pub mod spawn;
pub mod stdio;
pub mod stream;
pub mod terminal;
pub mod transient;
pub mod unix_socket;
pub mod user;
pub mod user_namespace;
pub mod watch;

pub use checkpoint::{checkpoint, limit, may_fail};
