//! Collects the content of a backup in an unnamed temporary file, the spool. The manifest, which is written first,
//! needs the size and hash of each file, and a source may change between two reads. A kill leaves no file behind. The
//! spool is on the destination's disk, which others may read later, so the spool of an encrypted backup is sealed:
//! encrypted with a key that exists only in this process's memory.

use crate::backup::format::archive::{Hashed, zstd_encoder};
use crate::backup::format::manifest::Sha256Hex;
use leoflow_base::sys::fs::sparse::{self, Block};
use leoflow_base::sys::fs::{disk, files};
use leoflow_base::sys::random;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The part of the spool that one `add` wrote: its position in the file, its unsealed size in bytes, and its hash.
#[derive(Debug)]
pub struct Piece {
    offset: u64,
    /// Number of its first chunk, if the spool is sealed.
    chunk: u64,
    pub size: u64,
    pub sha256: Sha256Hex,
    /// Ranges of zeros in the piece, in order, that the spool does not contain.
    holes: Vec<Range<u64>>,
}

impl Piece {
    /// Bytes outside the holes.
    pub fn stored(&self) -> u64 {
        self.size - self.holes.iter().map(|hole| hole.end - hole.start).sum::<u64>()
    }
}

/// Form of the spool on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRest {
    Plain,
    Sealed,
}

/// The side of a copy that failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{0}")]
    Source(io::Error),
    #[error("{0}")]
    Spool(io::Error),
}

/// The unnamed file with the copied content.
pub struct Spool {
    file: File,
    folder: PathBuf,
    length: u64,
    /// Free disk space to leave, in bytes; 0 is no limit.
    keep_free: u64,
    /// Bytes written since the free space was last checked.
    unchecked: u64,
    seal: Option<Seal>,
}

/// Encryption of the spool, chunk by chunk.
struct Seal {
    key: LessSafeKey,
    /// Number of the next chunk, used as its nonce. Never reused, even after a truncation.
    next: u64,
    /// The bytes of that chunk so far, not encrypted.
    pending: Vec<u8>,
}

/// Size of a chunk before sealing, in bytes.
const CHUNK_SIZE: usize = 64 * 1024;
/// Bytes that sealing adds to a chunk.
const TAG_SIZE: usize = 16;

impl Seal {
    fn new() -> io::Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &random::bytes::<32>());
        let key = LessSafeKey::new(key.map_err(|_| io::Error::other("cannot make a key for the copy"))?);
        Ok(Self { key, next: 0, pending: Vec::with_capacity(CHUNK_SIZE + TAG_SIZE) })
    }

    fn nonce(number: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Spool {
    /// Creates the spool in `folder`, the destination of the finished file.
    pub fn new(folder: &Path, keep_free: u64, at_rest: AtRest) -> io::Result<Self> {
        let path = files::temporary_neighbour(&folder.join("leoflow-backup-spool"));
        files::remove_any(&path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        let seal = (at_rest == AtRest::Sealed).then(Seal::new).transpose()?;
        Ok(Self { file, folder: folder.to_owned(), length: 0, keep_free, unchecked: CHECK_EVERY, seal })
    }

    /// Copies `source` to the end of the spool, except blocks of zeros.
    pub fn add(&mut self, source: &mut dyn Read) -> Result<Piece, SpoolError> {
        let (offset, chunk) = self.begin();
        let (mut size, mut holes, mut block) = (0, Vec::<Range<u64>>::new(), Vec::new());
        let mut source = BufReader::with_capacity(BUFFER_SIZE, Hashed::new(source));
        let mut target = BufWriter::with_capacity(BUFFER_SIZE, &mut *self);
        loop {
            let kind = sparse::read_block(&mut source, &mut block).map_err(SpoolError::Source)?;
            let end = size + block.len() as u64;
            match (kind, holes.last_mut()) {
                (Block::End, _) => break,
                (Block::Data, _) => target.write_all(&block).map_err(SpoolError::Spool)?,
                (Block::Hole, Some(hole)) if hole.end == size => hole.end = end,
                (Block::Hole, _) => holes.push(size..end),
            }
            size = end;
        }
        target.flush().map_err(SpoolError::Spool)?;
        drop(target);
        self.seal_pending().map_err(SpoolError::Spool)?;
        Ok(Piece { offset, chunk, size, sha256: source.into_inner().sha256(), holes })
    }

    /// Compresses `source` to the end of the spool. Also returns its uncompressed size in bytes; `on_progress` receives
    /// the number of uncompressed bytes so far.
    pub fn add_compressed(
        &mut self,
        source: &mut dyn Read,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<(Piece, u64), SpoolError> {
        let (offset, chunk) = self.begin();
        let mut encoder = zstd_encoder(Hashed::new(&mut *self)).map_err(SpoolError::Spool)?;
        let total = copy(source, &mut encoder, on_progress)?;
        let hashed = encoder.finish().map_err(SpoolError::Spool)?;
        let (size, sha256) = (hashed.bytes, hashed.sha256());
        self.seal_pending().map_err(SpoolError::Spool)?;
        Ok((Piece { offset, chunk, size, sha256, holes: Vec::new() }, total))
    }

    /// Removes `piece` and everything after it.
    pub fn truncate_to(&mut self, piece: Piece) {
        self.length = piece.offset;
    }

    pub fn read<'a>(&'a self, piece: &'a Piece) -> impl Read + 'a {
        PieceReader {
            spool: self,
            offset: piece.offset,
            remaining: piece.stored(),
            chunk: piece.chunk,
            position: 0,
            holes: &piece.holes,
            plaintext: Vec::new(),
            consumed: 0,
        }
    }

    /// Offset and chunk number of the next piece. Drops the pending bytes of a failed copy.
    fn begin(&mut self) -> (u64, u64) {
        let chunk = self.seal.as_mut().map_or(0, |seal| {
            seal.pending.clear();
            seal.next
        });
        (self.length, chunk)
    }

    fn seal_pending(&mut self) -> io::Result<()> {
        let Some(seal) = self.seal.as_mut().filter(|seal| !seal.pending.is_empty()) else { return Ok(()) };
        let mut sealed = std::mem::replace(&mut seal.pending, Vec::with_capacity(CHUNK_SIZE + TAG_SIZE));
        let outcome = seal.key.seal_in_place_append_tag(Seal::nonce(seal.next), Aad::empty(), &mut sealed);
        seal.next += 1;
        outcome.map_err(|_| io::Error::other("cannot encrypt the copy"))?;
        self.put(&sealed)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unchecked += bytes.len() as u64;
        if self.keep_free > 0 && self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            if disk::free_bytes(&self.folder)? < self.keep_free {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk would run out of space"));
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
        let count = bytes.len().min(CHUNK_SIZE - seal.pending.len());
        seal.pending.extend_from_slice(&bytes[..count]);
        if seal.pending.len() == CHUNK_SIZE {
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
    offset: u64,
    /// Bytes of the piece not yet read from the file.
    remaining: u64,
    chunk: u64,
    /// Number of bytes of the piece already returned, with its holes.
    position: u64,
    /// The holes that are not yet passed.
    holes: &'a [Range<u64>],
    /// The current chunk, decrypted.
    plaintext: Vec<u8>,
    /// Number of bytes of `plaintext` already returned.
    consumed: usize,
}

impl PieceReader<'_> {
    fn open_next(&mut self, seal: &Seal) -> io::Result<()> {
        let size = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(CHUNK_SIZE);
        let mut sealed = vec![0; size + TAG_SIZE];
        self.spool.file.read_exact_at(&mut sealed, self.offset)?;
        let opened = seal.key.open_in_place(Seal::nonce(self.chunk), Aad::empty(), &mut sealed);
        opened.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the copy was changed on the disk"))?;
        self.offset += sealed.len() as u64;
        sealed.truncate(size);
        self.plaintext = sealed;
        self.remaining -= size as u64;
        self.chunk += 1;
        self.consumed = 0;
        Ok(())
    }

    /// Reads bytes that the spool contains.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let spool = self.spool;
        let Some(seal) = &spool.seal else {
            let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
            let count = spool.file.read_at(&mut buffer[..length], self.offset)?;
            self.offset += count as u64;
            self.remaining -= count as u64;
            return Ok(count);
        };
        if self.consumed == self.plaintext.len() && self.remaining > 0 {
            self.open_next(seal)?;
        }
        let count = buffer.len().min(self.plaintext.len() - self.consumed);
        buffer[..count].copy_from_slice(&self.plaintext[self.consumed..self.consumed + count]);
        self.consumed += count;
        Ok(count)
    }
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (is_hole, end) = match self.holes.first() {
            Some(hole) if hole.start <= self.position => (true, hole.end),
            hole => (false, hole.map_or(u64::MAX, |hole| hole.start)),
        };
        let length = usize::try_from(end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let count = match is_hole {
            true => io::repeat(0).read(&mut buffer[..length])?,
            false => self.read_stored(&mut buffer[..length])?,
        };
        self.position += count as u64;
        if is_hole && self.position == end {
            self.holes = &self.holes[1..];
        }
        Ok(count)
    }
}

/// Bytes written between checks of the free space.
const CHECK_EVERY: u64 = 4 * 1024 * 1024;

const BUFFER_SIZE: usize = 256 * 1024;

fn copy(source: &mut dyn Read, target: &mut dyn Write, on_progress: &mut dyn FnMut(u64)) -> Result<u64, SpoolError> {
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut total = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                target.write_all(&buffer[..count]).map_err(SpoolError::Spool)?;
                total += count as u64;
                on_progress(total);
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
    fn pieces_round_trip_without_leaving_files() {
        for at_rest in [AtRest::Plain, AtRest::Sealed] {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(folder.path(), 0, at_rest).unwrap();
            let long: Vec<u8> = (0..3 * CHUNK_SIZE + 7).map(|index| (index % 251) as u8).collect();
            let first_piece = spool.add(&mut "one".as_bytes()).unwrap();
            let two = spool.add(&mut &long[..]).unwrap();
            spool.truncate_to(two);
            // A failed source leaves nothing in the next piece.
            assert!(matches!(spool.add(&mut Broken(&b"half"[..])), Err(SpoolError::Source(_))));
            let three = spool.add(&mut "three".as_bytes()).unwrap();
            let four = spool.add(&mut &long[..]).unwrap();
            let read = |piece: &Piece| {
                let mut bytes = Vec::new();
                spool.read(piece).read_to_end(&mut bytes).unwrap();
                bytes
            };
            assert_eq!((read(&first_piece), read(&three), read(&four)), (b"one".to_vec(), b"three".to_vec(), long));
            assert_ne!(first_piece.sha256, three.sha256);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn blocks_of_zeros_take_no_space() {
        for at_rest in [AtRest::Plain, AtRest::Sealed] {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(folder.path(), 0, at_rest).unwrap();
            let mut content = vec![0; 3 * 1024 * 1024];
            content[1_000_000..1_200_000].fill(b'x');
            content[3_000_000] = b'y';
            for length in [0, 10, 900_000, 1_100_000, 1_300_000, content.len()] {
                let before = spool.length;
                let piece = spool.add(&mut &content[..length]).unwrap();
                let mut bytes = Vec::new();
                spool.read(&piece).read_to_end(&mut bytes).unwrap();
                assert!(bytes == content[..length], "{length}");
                assert_eq!(piece.size, length as u64);
                assert!(piece.stored() < 220_000 && spool.length - before < 220_000, "{length}: {}", piece.stored());
            }
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
    fn a_sealed_spool_is_unreadable_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path(), 0, AtRest::Sealed).unwrap();
        let text = "the password is swordfish; ".repeat(10_000);
        let first = spool.add(&mut text.as_bytes()).unwrap();
        let mut before = vec![0; 1000];
        spool.file.read_exact_at(&mut before, 0).unwrap();
        spool.truncate_to(first);
        let changed = spool.add(&mut text.as_bytes()).unwrap();
        let mut bytes = vec![0; spool.length as usize];
        spool.file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"swordfish"));
        assert_ne!(bytes[..1000], before[..], "reusing a nonce would reveal both texts");
        let (piece, _) = spool.add_compressed(&mut text.as_bytes(), &mut |_| {}).unwrap();
        let mut bytes = Vec::new();
        zstd::stream::copy_decode(spool.read(&piece), &mut bytes).unwrap();
        assert_eq!(bytes, text.as_bytes());
        // The medium, or another user of it, changes a byte.
        spool.file.write_all_at(b"?", changed.offset + 100).unwrap();
        let refused = spool.read(&changed).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn keeps_the_required_free_space() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path(), u64::MAX, AtRest::Plain).unwrap();
        let Err(SpoolError::Spool(error)) = spool.add(&mut "x".as_bytes()) else {
            panic!("it was written nevertheless")
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
