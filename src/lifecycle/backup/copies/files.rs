//! The files at a place, and hashes of what is read.

use super::CopyError;
use crate::backup::format::archive::Hashed;
use std::fs::File;
use std::io;
use std::path::Path;

/// A file at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub size: u64,
}

/// Opens a file of this machine.
pub fn open(path: &Path) -> Result<File, CopyError> {
    File::open(path).map_err(in_file(path))
}

/// The hash of the bytes that were written, in hexadecimal.
pub fn hash_of<T>(hashed: Hashed<T>) -> String {
    hashed.sha256().to_string()
}

/// The error of an operation on a file or folder.
pub fn in_file(path: &Path) -> impl Fn(io::Error) -> CopyError + use<> {
    let path = path.to_owned();
    move |source| CopyError::File { path: path.clone(), source }
}
