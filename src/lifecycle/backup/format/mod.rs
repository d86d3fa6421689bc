//! The file format of backups.

pub mod archive;
pub mod archive_read;
pub mod manifest;
