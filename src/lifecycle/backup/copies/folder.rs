//! A folder as a place for copies, such as a USB disk, a network share or a folder that a program synchronizes.

use super::CopyError;
use super::files::{Entry, hash_of, in_file, open};
use crate::backup::format::archive::Hashed;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::{disk, files, folders};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder must exist: a missing one may be the mount point of a disk that is not connected.
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        match path.is_dir() {
            true => Ok(Self { path: path.to_owned() }),
            false => Err(CopyError::NoFolder),
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

    /// Writes to a hidden name, flushes the file to the disk, and renames it. Replaces no file.
    pub fn put(&self, file: &Path, name: &str) -> Result<String, CopyError> {
        let to = self.path.join(name);
        let mut content = open(file)?;
        let (part_file, part) = files::create_neighbour(&to, 0o600).map_err(in_file(&to))?;
        let write = || {
            let mut hashed = Hashed::new(part_file);
            io::copy(&mut content, &mut hashed)?;
            files::sync(&hashed.inner)?;
            checkpoint("copies.written");
            files::rename_to_new(&part, &to)?;
            files::sync_parent(&to)?;
            Ok(hash_of(hashed))
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
        disk::forget_cached(&path).map_err(in_file(&path))?;
        io::copy(&mut open(&path)?, sink).map(drop).map_err(in_file(&path))
    }

    pub fn remove(&self, name: &str) -> Result<(), CopyError> {
        let path = self.path.join(name);
        files::remove_any(&path).map_err(in_file(&path))
    }

    /// Removes what a killed process has left of an upload of this name.
    pub fn remove_part(&self, name: &str) -> Result<(), CopyError> {
        let is_part = |path: &Path| {
            let parts = path.file_name().and_then(|name| name.to_str()).and_then(files::neighbour_parts);
            parts.is_some_and(|(target, _)| target == name)
        };
        let paths = folders::entries(&self.path).map_err(in_file(&self.path))?;
        paths.iter().filter(|path| is_part(path)).try_for_each(|path| files::remove_any(path).map_err(in_file(path)))
    }
}
