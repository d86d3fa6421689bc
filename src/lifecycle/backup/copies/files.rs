//! The files of this machine and of a place.

use super::CopyError;
use crate::backup::format::archive::Hashed;
use crate::backup::format::manifest::Sha256Hex;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// A file at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub size: u64,
}

/// Size of the pieces that files are read in, in bytes.
const BUFFER_SIZE: usize = 1024 * 1024;

/// Copies a file into `sink`.
pub fn copy_file(path: &Path, sink: &mut impl Write) -> io::Result<()> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; BUFFER_SIZE]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => sink.write_all(&buffer[..count])?,
        }
    }
}

/// The hash of a file of this machine.
pub fn hash_file(path: &Path) -> Result<Sha256Hex, CopyError> {
    let mut hashed = Hashed::new(io::sink());
    copy_file(path, &mut hashed).map_err(|source| CopyError::File { path: path.to_owned(), source })?;
    Ok(hashed.sha256())
}
