//! What only the operating system can do, and all of `unsafe`. Everything that is Linux's alone
//! lives here, so that another platform is a port of this folder.

pub mod beneath;
pub mod blocking;
pub mod checkpoint;
pub mod clock;
pub mod command;
pub mod disk;
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
