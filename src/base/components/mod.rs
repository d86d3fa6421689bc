//! Components that are downloaded or given as files: wheels from the Python package index, and archives.

pub mod archive;
pub mod wheel;
