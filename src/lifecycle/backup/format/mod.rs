//! The file format.

pub mod archive;
pub mod archive_read;
pub mod manifest;
