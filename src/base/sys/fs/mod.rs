//! Files, folders, locks and file systems.

pub mod beneath;
pub mod disk;
pub mod disk_usage;
pub mod files;
pub mod flock;
pub mod folders;
pub mod mounts;
pub mod permissions;
pub mod sparse;
pub mod watch;
