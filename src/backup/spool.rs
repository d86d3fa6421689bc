//! What a backup will hold, before it is written: copied once into a file without a name, so that size and hash are known
//! before the manifest is, and what is hashed is what is written. A process that is killed leaves nothing of it. The file
//! is where the backup goes, which may be a medium that others have: for an encrypted backup it is sealed with a key that
//! only this process's memory holds.

use super::archive::{Hashed, zstd_encoder};
use super::manifest::Sha256Hex;
use crate::sys::{disk, files, random};
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A part of the spool.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    offset: u64,
    /// The number of its first chunk, where it is sealed.
    chunk: u64,
    pub size: u64,
    pub sha256: Sha256Hex,
}

/// How the spool is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRest {
    Plain,
    Sealed,
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
    seal: Option<Seal>,
}

struct Seal {
    cipher: XChaCha20Poly1305,
    /// The number of the next chunk, which is its nonce: no number is used twice, also not for bytes that are taken back.
    next: u64,
    /// The beginning of that chunk.
    pending: Vec<u8>,
}

/// Bytes of a chunk before it is sealed, and what sealing adds.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

impl Seal {
    fn new() -> Self {
        let cipher = XChaCha20Poly1305::new(&Key::from(random::bytes::<32>()));
        Self { cipher, next: 0, pending: Vec::with_capacity(CHUNK) }
    }

    fn nonce(number: u64) -> XNonce {
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        XNonce::from(nonce)
    }
}

impl Spool {
    /// In `folder`, which is to hold the finished file too.
    pub fn new(folder: &Path, keep_free: u64, at_rest: AtRest) -> io::Result<Self> {
        let path = files::temporary_neighbour(&folder.join("leoflow-backup-spool"));
        files::remove_any(&path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        let seal = (at_rest == AtRest::Sealed).then(Seal::new);
        Ok(Self { file, folder: folder.to_owned(), length: 0, keep_free, unchecked: CHECK_EVERY, seal })
    }

    /// Takes in what `source` has, to its end.
    pub fn add(&mut self, source: &mut dyn Read) -> Result<Piece, SpoolError> {
        let (offset, chunk) = self.begin();
        let mut hashed = Hashed::new(&mut *self);
        copy(source, &mut hashed, &mut |_| {})?;
        let (size, sha256) = (hashed.bytes, hashed.sha256());
        self.seal_pending().map_err(SpoolError::Spool)?;
        Ok(Piece { offset, chunk, size, sha256 })
    }

    pub fn add_compressed(
        &mut self,
        source: &mut dyn Read,
        seen: &mut dyn FnMut(u64),
    ) -> Result<(Piece, u64), SpoolError> {
        let (offset, chunk) = self.begin();
        let mut encoder = zstd_encoder(Hashed::new(&mut *self)).map_err(SpoolError::Spool)?;
        let total = copy(source, &mut encoder, seen)?;
        let hashed = encoder.finish().map_err(SpoolError::Spool)?;
        let (size, sha256) = (hashed.bytes, hashed.sha256());
        self.seal_pending().map_err(SpoolError::Spool)?;
        Ok((Piece { offset, chunk, size, sha256 }, total))
    }

    /// Takes back what came in last, down to the end of what was there before `piece`.
    pub fn take_back(&mut self, piece: Piece) {
        self.length = piece.offset;
    }

    pub fn read(&self, piece: Piece) -> impl Read + '_ {
        PieceReader { spool: self, at: piece.offset, left: piece.size, chunk: piece.chunk, opened: Vec::new(), used: 0 }
    }

    /// Where the next piece begins. What is left of a copy that failed is no part of it.
    fn begin(&mut self) -> (u64, u64) {
        let chunk = self.seal.as_mut().map_or(0, |seal| {
            seal.pending.clear();
            seal.next
        });
        (self.length, chunk)
    }

    fn seal_pending(&mut self) -> io::Result<()> {
        let Some(seal) = self.seal.as_mut().filter(|seal| !seal.pending.is_empty()) else { return Ok(()) };
        let sealed = seal.cipher.encrypt(&Seal::nonce(seal.next), &seal.pending[..]);
        seal.next += 1;
        seal.pending.clear();
        self.put(&sealed.map_err(|_| io::Error::other("the copy cannot be sealed"))?)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unchecked += bytes.len() as u64;
        if self.keep_free > 0 && self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            if disk::free_bytes(&self.folder)? < self.keep_free {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk would be full"));
            }
        }
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(seal) = &mut self.seal else {
            self.put(bytes)?;
            return Ok(bytes.len());
        };
        let count = bytes.len().min(CHUNK - seal.pending.len());
        seal.pending.extend_from_slice(&bytes[..count]);
        if seal.pending.len() == CHUNK {
            self.seal_pending()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct PieceReader<'a> {
    spool: &'a Spool,
    at: u64,
    /// Bytes of the piece that are still to be read from the file.
    left: u64,
    chunk: u64,
    /// The chunk that is being read, and how much of it has been.
    opened: Vec<u8>,
    used: usize,
}

impl PieceReader<'_> {
    fn open_next(&mut self, seal: &Seal) -> io::Result<()> {
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK);
        let mut sealed = vec![0; size + TAG];
        self.spool.file.read_exact_at(&mut sealed, self.at)?;
        let opened = seal.cipher.decrypt(&Seal::nonce(self.chunk), &sealed[..]);
        self.opened =
            opened.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the copy was changed on the disk"))?;
        self.at += sealed.len() as u64;
        self.left -= size as u64;
        self.chunk += 1;
        self.used = 0;
        Ok(())
    }
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let spool = self.spool;
        let Some(seal) = &spool.seal else {
            let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            let count = spool.file.read_at(&mut buffer[..wanted], self.at)?;
            self.at += count as u64;
            self.left -= count as u64;
            return Ok(count);
        };
        if self.used == self.opened.len() && self.left > 0 {
            self.open_next(seal)?;
        }
        let count = buffer.len().min(self.opened.len() - self.used);
        buffer[..count].copy_from_slice(&self.opened[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

/// How much is written between two looks at the free space.
const CHECK_EVERY: u64 = 4 * 1024 * 1024;

const BUFFER: usize = 256 * 1024;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_went_in_and_no_file_is_left() {
        for at_rest in [AtRest::Plain, AtRest::Sealed] {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(folder.path(), 0, at_rest).unwrap();
            let long: Vec<u8> = (0..3 * CHUNK + 7).map(|at| (at % 251) as u8).collect();
            let one = spool.add(&mut "one".as_bytes()).unwrap();
            let two = spool.add(&mut &long[..]).unwrap();
            spool.take_back(two);
            // A source that fails half way leaves nothing in the next piece.
            assert!(matches!(spool.add(&mut Broken(&b"half"[..])), Err(SpoolError::Source(_))));
            let three = spool.add(&mut "three".as_bytes()).unwrap();
            let four = spool.add(&mut &long[..]).unwrap();
            let read = |piece| {
                let mut bytes = Vec::new();
                spool.read(piece).read_to_end(&mut bytes).unwrap();
                bytes
            };
            assert_eq!((read(one), read(three), read(four)), (b"one".to_vec(), b"three".to_vec(), long));
            assert_ne!(one.sha256, three.sha256);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    struct Broken<'a>(&'a [u8]);

    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("broken")),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn nothing_readable_of_a_sealed_spool_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path(), 0, AtRest::Sealed).unwrap();
        let text = "the password is swordfish; ".repeat(10_000);
        let first = spool.add(&mut text.as_bytes()).unwrap();
        let mut before = vec![0; 1000];
        spool.file.read_exact_at(&mut before, 0).unwrap();
        spool.take_back(first);
        spool.add(&mut text.as_bytes()).unwrap();
        let mut bytes = vec![0; spool.length as usize];
        spool.file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"swordfish"));
        assert_ne!(bytes[..1000], before[..], "one key and nonce for two texts would tell both");
        let (piece, _) = spool.add_compressed(&mut text.as_bytes(), &mut |_| {}).unwrap();
        let mut found = Vec::new();
        zstd::stream::copy_decode(spool.read(piece), &mut found).unwrap();
        assert_eq!(found, text.as_bytes());
    }

    #[test]
    fn a_disk_that_would_get_full_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path(), u64::MAX, AtRest::Plain).unwrap();
        let Err(SpoolError::Spool(error)) = spool.add(&mut "x".as_bytes()) else { panic!("written all the same") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
