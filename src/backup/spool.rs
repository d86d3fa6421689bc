//! What a backup will hold, before it is written: copied once into a file without a name, so that
//! size and hash are known before the manifest is, and what is hashed is what is written. A process
//! that is killed leaves nothing of it.

use super::archive::{Hashed, zstd_encoder};
use super::manifest::Sha256Hex;
use crate::sys::{disk, files};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A part of the spool.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    offset: u64,
    pub size: u64,
    pub sha256: Sha256Hex,
}

/// Which end of a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{0}")]
    Source(io::Error),
    #[error("{0}")]
    Spool(io::Error),
}

pub struct Spool {
    file: File,
    folder: PathBuf,
    length: u64,
    /// Bytes of the disk that stay free, whatever else; 0 for no such limit.
    keep_free: u64,
    unchecked: u64,
}

/// How much is written between two looks at the free space.
const CHECK_EVERY: u64 = 4 * 1024 * 1024;
const BUFFER: usize = 256 * 1024;

impl Spool {
    /// In `folder`, which is to hold the finished file too.
    pub fn new(folder: &Path, keep_free: u64) -> io::Result<Self> {
        let path = files::temporary_neighbour(&folder.join("leoflow-backup-spool"));
        files::remove_any(&path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, folder: folder.to_owned(), length: 0, keep_free, unchecked: CHECK_EVERY })
    }

    /// Takes in what `source` has, to its end.
    pub fn add(&mut self, source: &mut dyn Read) -> Result<Piece, SpoolError> {
        let offset = self.length;
        let mut hashed = Hashed::new(&mut *self);
        copy(source, &mut hashed, &mut |_| {})?;
        Ok(Piece { offset, size: hashed.bytes, sha256: hashed.sha256() })
    }

    /// The same, compressed by zstd on its way in; `seen` hears how much has been read so far. Returns
    /// the size before compression too.
    pub fn add_compressed(
        &mut self,
        source: &mut dyn Read,
        seen: &mut dyn FnMut(u64),
    ) -> Result<(Piece, u64), SpoolError> {
        let offset = self.length;
        let mut encoder = zstd_encoder(Hashed::new(&mut *self)).map_err(SpoolError::Spool)?;
        let total = copy(source, &mut encoder, seen)?;
        let hashed = encoder.finish().map_err(SpoolError::Spool)?;
        Ok((Piece { offset, size: hashed.bytes, sha256: hashed.sha256() }, total))
    }

    /// Takes back what came in last, down to the end of what was there before `piece`.
    pub fn take_back(&mut self, piece: Piece) {
        self.length = piece.offset;
    }

    pub fn read(&self, piece: Piece) -> impl Read + '_ {
        PieceReader { file: &self.file, at: piece.offset, left: piece.size }
    }
}

fn copy(source: &mut dyn Read, target: &mut dyn Write, seen: &mut dyn FnMut(u64)) -> Result<u64, SpoolError> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                target.write_all(&buffer[..count]).map_err(SpoolError::Spool)?;
                total += count as u64;
                seen(total);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SpoolError::Source(error)),
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unchecked += bytes.len() as u64;
        if self.keep_free > 0 && self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            if disk::free_bytes(&self.folder)? < self.keep_free {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk would be full"));
            }
        }
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct PieceReader<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_went_in_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path(), 0).unwrap();
        let one = spool.add(&mut "one".as_bytes()).unwrap();
        let two = spool.add(&mut "two".as_bytes()).unwrap();
        spool.take_back(two);
        let three = spool.add(&mut "three".as_bytes()).unwrap();
        let read = |piece| {
            let mut text = String::new();
            spool.read(piece).read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!((read(one), read(three)), ("one".into(), "three".into()));
        assert_ne!(one.sha256, three.sha256);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_that_would_get_full_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path(), u64::MAX).unwrap();
        let Err(SpoolError::Spool(error)) = spool.add(&mut "x".as_bytes()) else { panic!("written all the same") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
