//! The file format: a tar compressed with zstd or gzip, whose first entry, the manifest, describes the others.

use super::manifest::{Content, Entry, MANIFEST, Sha256Hex};
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::Path;
use tar::{EntryType, Header};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Zstd,
    Gzip,
}

/// True when a file's name marks it as encrypted.
pub(crate) fn is_encrypted_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "age")
}

impl Compression {
    /// Compression for the extension `.tar.zst` or `.tar.gz`, optionally followed by `.age`; `None` for others.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(".age").unwrap_or(name);
        if name.ends_with(".tar.zst") {
            Some(Self::Zstd)
        } else if name.ends_with(".tar.gz") {
            Some(Self::Gzip)
        } else {
            None
        }
    }
}

/// zstd's default level.
const ZSTD_LEVEL: i32 = 3;
/// The window that every zstd reader must support, 8 MiB (RFC 8878). Frames that need more are refused before memory is
/// allocated.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Counts and hashes the bytes that pass through.
pub struct Hashed<T> {
    pub inner: T,
    pub bytes: u64,
    hash: Sha256,
}

impl<T> Hashed<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, bytes: 0, hash: Sha256::new() }
    }

    pub fn sha256(self) -> Sha256Hex {
        Sha256Hex(self.hash.finalize().into())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// A writer that passes what it is given on to another, compressed or encrypted for example.
pub trait Layer<W>: Write {
    /// Writes what is still buffered, without which the output cannot be read, and returns the inner writer.
    fn finish(self: Box<Self>) -> io::Result<W>;
}

/// Implements [`Layer`] by the method `finish` of the type.
macro_rules! layers {
    ($($layer:ty),+ $(,)?) => {$(
        impl<W: Write> Layer<W> for $layer {
            fn finish(self: Box<Self>) -> io::Result<W> {
                (*self).finish()
            }
        }
    )+};
}

layers!(zstd::stream::write::Encoder<'static, W>, flate2::write::GzEncoder<W>, age::stream::StreamWriter<W>);

/// Lets a writer stand for itself where nothing is put around it.
macro_rules! no_layer {
    ($($writer:ty),+) => {$(
        impl<W: Write> Layer<Self> for $writer {
            fn finish(self: Box<Self>) -> io::Result<Self> {
                Ok(*self)
            }
        }
    )+};
}

no_layer!(Hashed<W>, BufWriter<W>);

impl Compression {
    fn writer<W: Write + 'static>(self, writer: W) -> io::Result<Box<dyn Layer<W>>> {
        Ok(match self {
            Self::Zstd => Box::new(zstd_encoder(writer)?),
            Self::Gzip => Box::new(flate2::write::GzEncoder::new(writer, flate2::Compression::default())),
        })
    }
}

/// Creates an encoder that adds a checksum to the frame, so that any flipped bit is detected.
pub(crate) fn zstd_encoder<W: Write>(writer: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(writer, ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// Creates a decoder that refuses frames with a window above `ZSTD_WINDOW_LOG`.
pub(crate) fn zstd_decoder<R: BufRead>(reader: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Writes a backup entry by entry.
pub struct ArchiveWriter<W> {
    tar: tar::Builder<Box<dyn Layer<W>>>,
}

impl<W: Write + 'static> ArchiveWriter<W> {
    /// Starts the archive with the manifest. `created` is in seconds since 1970.
    pub fn begin(writer: W, compression: Compression, manifest: &[u8], created: u64) -> io::Result<Self> {
        let mut archive = Self { tar: tar::Builder::new(compression.writer(writer)?) };
        archive.file(MANIFEST, manifest.len() as u64, false, created, manifest)?;
        Ok(archive)
    }

    /// Adds the manifest's next entry; fails if `content` is shorter than declared. `modified` is in seconds since
    /// 1970.
    pub fn add(&mut self, entry: &Entry, modified: u64, content: impl Read) -> io::Result<()> {
        match &entry.content {
            Content::File { size, executable, .. } => self.file(&entry.path, *size, *executable, modified, content),
            Content::Directory { .. } => {
                let mut header = header(EntryType::Directory, 0, 0o700, modified);
                self.tar.append_data(&mut header, format!("{}/", entry.path), io::empty())
            }
            Content::Symlink { target } => {
                let mut header = header(EntryType::Symlink, 0, 0o777, modified);
                self.tar.append_link(&mut header, &entry.path, target)
            }
        }
    }

    fn file(&mut self, path: &str, size: u64, executable: bool, modified: u64, content: impl Read) -> io::Result<()> {
        let mode = if executable { 0o700 } else { 0o600 };
        let mut content = content.take(size);
        self.tar.append_data(&mut header(EntryType::Regular, size, mode, modified), path, &mut content)?;
        match content.limit() {
            0 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{path} became shorter during the copy"))),
        }
    }

    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

fn header(kind: EntryType, size: u64, mode: u32, modified: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(modified);
    header.set_uid(0);
    header.set_gid(0);
    header
}
