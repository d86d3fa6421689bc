//! The end of a growing log file.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Reads what is appended to a file, which may be rotated.
pub struct Tail {
    path: PathBuf,
    /// Offset in bytes up to which the file was read.
    position: u64,
    inode: u64,
    /// The beginning of a line whose end was not written yet.
    partial: Vec<u8>,
}

impl Tail {
    pub fn at_start(path: PathBuf) -> Self {
        Self { path, position: 0, inode: 0, partial: Vec::new() }
    }

    pub(crate) fn at_end(path: PathBuf) -> Self {
        let (position, inode) = std::fs::metadata(&path).map_or((0, 0), |meta| (meta.len(), meta.ino()));
        Self { path, position, inode, partial: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the file has bytes that were not read.
    pub fn has_more(&self) -> bool {
        self.path.metadata().is_ok_and(|meta| meta.len() > self.position)
    }

    /// Reads new complete lines. A file that does not exist, as during a rotation, has none.
    pub(crate) fn new_lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let meta = file.metadata()?;
        if meta.ino() != self.inode || meta.len() < self.position {
            (self.position, self.inode) = (0, meta.ino());
        }
        file.seek(SeekFrom::Start(self.position))?;
        self.position += file.read_to_end(&mut self.partial)? as u64;
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let complete: Vec<u8> = self.partial.drain(..end).collect();
        Ok(String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect())
    }
}
