//! A partially downloaded file.

use super::{FetchError, ReleaseFile};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A partially downloaded file, limited to the size in the manifest.
pub(crate) struct PartialFile<'a> {
    path: &'a Path,
    file: File,
    /// Number of bytes in the file.
    pub(crate) length: u64,
    limit: u64,
    location: &'a str,
}

impl<'a> PartialFile<'a> {
    pub(crate) fn open(path: &'a Path, release_file: &ReleaseFile, location: &'a str) -> Result<Self, FetchError> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let sized = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = sized.map_err(|source| FetchError::Write { path: path.to_owned(), source })?;
        let mut target = Self { path, file, length, limit: release_file.size, location };
        if length > release_file.size {
            target.restart()?;
        }
        Ok(target)
    }

    /// Empties the file.
    pub(crate) fn restart(&mut self) -> Result<(), FetchError> {
        self.length = 0;
        self.file.set_len(0).map_err(|source| FetchError::Write { path: self.path.to_owned(), source })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.length += bytes.len() as u64;
        if self.length > self.limit {
            return Err(FetchError::TooLarge { location: self.location.to_owned(), limit: self.limit });
        }
        self.file.write_all(bytes).map_err(|source| FetchError::Write { path: self.path.to_owned(), source })
    }
}
