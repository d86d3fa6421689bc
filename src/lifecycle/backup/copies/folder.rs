//! A folder as a place for copies, such as a USB disk, a network share or a folder that a program synchronizes.

use super::CopyError;
use super::files::{Entry, copy_file};
use crate::backup::format::archive::Hashed;
use crate::backup::format::manifest::Sha256Hex;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::{disk, files, folders};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder must exist: a missing one may be the mount point of a disk that is not connected.
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        match path.is_dir() {
            true => Ok(Self { path: path.to_owned() }),
            false => Err(CopyError::NoFolder(path.to_owned())),
        }
    }

    pub fn list(&self) -> Result<Vec<Entry>, CopyError> {
        let list = || {
            let mut entries = Vec::new();
            for path in folders::entries(&self.path)? {
                let name = path.file_name().and_then(|name| name.to_str());
                // A file that was removed meanwhile is not there.
                if let (Some(name), Ok(meta)) = (name, fs::metadata(&path))
                    && meta.is_file()
                {
                    entries.push(Entry { name: name.to_owned(), size: meta.len() });
                }
            }
            Ok(entries)
        };
        list().map_err(in_file(&self.path))
    }

    /// Writes to a hidden name, flushes the file to the disk, and renames it.
    pub fn put(&self, file: &Path, name: &str) -> Result<Sha256Hex, CopyError> {
        let (to, part) = (self.path.join(name), self.path.join(format!(".{name}.part")));
        let write = || {
            let part_file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            let mut hashed = Hashed::new(part_file);
            copy_file(file, &mut hashed)?;
            hashed.flush()?;
            hashed.inner.sync_all()?;
            checkpoint("copies.written");
            files::rename_durably(&part, &to)?;
            Ok(hashed.sha256())
        };
        let written = write();
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&part);
        }
        written.map_err(in_file(&to))
    }

    pub fn read(&self, name: &str, sink: &mut impl Write) -> Result<(), CopyError> {
        let path = self.path.join(name);
        // The bytes of the disk, not those that are still in memory.
        disk::forget_cached(&path).and_then(|()| copy_file(&path, sink)).map_err(in_file(&path))
    }

    pub fn remove(&self, name: &str) -> Result<(), CopyError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(in_file(&path)),
        }
    }
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::File { path: path.clone(), source }
}
