//! Reads a backup without trusting it: each entry must match the manifest, in order, and nothing may follow the last
//! one.

use super::archive::{Hashed, zstd_decoder};
use super::manifest::{Content, Entry, MANIFEST, Manifest, ManifestError};
use std::io::{self, BufRead, BufReader, Read};
use tar::EntryType;

const BUFFER_SIZE: usize = 256 * 1024;
/// Size limit of a long-name entry, in bytes: tar stores a name that is too long for a header in an entry of its own.
const LONG_NAME_LIMIT: u64 = 8 * 1024;
/// Number of bytes after which `manifest_and_file` cuts off a file.
const PLAN_FILE_LIMIT: u64 = 1024 * 1024;
/// Limit of the zero padding after the tar, in bytes; common tools write up to 10 KiB.
const PADDING_LIMIT: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is not a backup: {0}")]
    NotABackup(&'static str),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("it cannot be read completely: {0}")]
    Damaged(String),
    #[error("the manifest lists {expected}, but the archive has {tar_entry}")]
    Unexpected { expected: String, tar_entry: String },
    #[error("{path} does not match the manifest: {what}")]
    Content { path: String, what: &'static str },
    #[error("there is more data after the last entry")]
    Trailing,
    /// The destination failed to store the content.
    #[error("{0}")]
    Sink(io::Error),
    #[error("cannot open it: {0}")]
    Open(io::Error),
}

/// Destination of the entries.
pub trait Sink {
    /// Stores an entry; `modified` is in seconds since 1970. Unread content is skipped. Returns errors of the
    /// destination, and `InvalidData` if the content outside holes is larger than the entry says.
    fn entry(&mut self, entry: &Entry, modified: u64, content: &mut dyn Read) -> io::Result<()>;
}

/// Stores nothing, for verification only.
pub struct NoSink;

impl Sink for NoSink {
    fn entry(&mut self, _: &Entry, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

/// A backup whose manifest has been read and checked.
pub struct ArchiveReader<'a> {
    tar: tar::Archive<Box<dyn Read + 'a>>,
}

impl<'a> ArchiveReader<'a> {
    pub fn new(source: impl Read + 'a) -> Result<Self, ArchiveError> {
        let mut source = BufReader::with_capacity(BUFFER_SIZE, source);
        let start = source.fill_buf().map_err(open_error)?;
        let decoder: Box<dyn Read + 'a> = match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd_decoder(source).map_err(damaged)?),
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            [] => return Err(ArchiveError::NotABackup("it is empty")),
            _ => return Err(ArchiveError::NotABackup("it is neither zstd nor gzip")),
        };
        Ok(Self { tar: tar::Archive::new(Box::new(BufReader::with_capacity(BUFFER_SIZE, decoder))) })
    }

    /// Reads the manifest only; the rest is unverified.
    pub fn manifest(&mut self) -> Result<Manifest, ArchiveError> {
        manifest(&mut self.tar.entries().map_err(damaged)?.raw(true))
    }

    /// Reads the manifest and the file `path`, if present. Does not verify them as [`Self::read`] does, so they are for
    /// plans only.
    pub(crate) fn manifest_and_file(&mut self, path: &str) -> Result<(Manifest, Option<Vec<u8>>), ArchiveError> {
        let mut entries = self.tar.entries().map_err(damaged)?.raw(true);
        let manifest = manifest(&mut entries)?;
        while let Some(tar_entry) = next_entry(&mut entries)? {
            if tar_entry.path == path && tar_entry.kind == EntryType::Regular {
                let mut content = Vec::new();
                tar_entry.entry.take(PLAN_FILE_LIMIT).read_to_end(&mut content).map_err(damaged)?;
                return Ok((manifest, Some(content)));
            }
        }
        Ok((manifest, None))
    }

    /// Reads the archive to its last byte, compares each entry with the manifest and passes it to `sink`.
    ///
    /// # Errors
    /// Fails at the first difference; `sink` has then received the entries before it.
    pub fn read(mut self, sink: &mut dyn Sink) -> Result<Manifest, ArchiveError> {
        let manifest = self.entries(sink)?;
        let mut remaining_bytes = self.tar.into_inner();
        check_padding(&mut remaining_bytes)?;
        Ok(manifest)
    }

    fn entries(&mut self, sink: &mut dyn Sink) -> Result<Manifest, ArchiveError> {
        let mut entries = self.tar.entries().map_err(damaged)?.raw(true);
        let manifest = manifest(&mut entries)?;
        for expected in &manifest.entries {
            let tar_entry = next_entry(&mut entries)?.ok_or_else(|| unexpected(expected, "nothing more"))?;
            check_entry(expected, tar_entry, sink)?;
        }
        match next_entry(&mut entries)? {
            None => Ok(manifest),
            Some(extra) => Err(ArchiveError::Unexpected {
                expected: "nothing more".to_owned(),
                tar_entry: format!("{:?}", extra.path),
            }),
        }
    }
}

/// Reads the manifest, which must be the first entry.
fn manifest<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Manifest, ArchiveError> {
    let first = next_entry(entries)?.ok_or(ArchiveError::NotABackup("it has no manifest"))?;
    if first.path != MANIFEST || first.kind != EntryType::Regular {
        return Err(ArchiveError::NotABackup("it does not start with a manifest"));
    }
    let size = first.entry.size();
    Ok(Manifest::read(first.entry, size)?)
}

/// Converts an error of opening a backup; a decryption reports changed bytes as `InvalidData`.
pub(crate) fn open_error(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::InvalidData => damaged(error),
        _ => ArchiveError::Open(error),
    }
}

fn damaged(error: io::Error) -> ArchiveError {
    ArchiveError::Damaged(error.to_string())
}

fn unexpected(expected: &Entry, tar_entry: &str) -> ArchiveError {
    ArchiveError::Unexpected { expected: expected.path.clone(), tar_entry: tar_entry.to_owned() }
}

/// A tar entry with its full name.
struct TarEntry<'a, R: Read> {
    path: String,
    target: Option<String>,
    kind: EntryType,
    entry: tar::Entry<'a, R>,
}

/// Returns the next entry, with long names resolved. Raw entries are used because the tar library would read a long
/// name of any declared length into memory.
fn next_entry<'a, R: Read>(entries: &mut tar::Entries<'a, R>) -> Result<Option<TarEntry<'a, R>>, ArchiveError> {
    let (mut long_path, mut long_target) = (None, None);
    loop {
        let Some(entry) = entries.next() else {
            return match (long_path, long_target) {
                (None, None) => Ok(None),
                _ => Err(ArchiveError::Damaged("a long name without an entry".to_owned())),
            };
        };
        let entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        let long_field = match kind {
            EntryType::GNULongName => &mut long_path,
            EntryType::GNULongLink => &mut long_target,
            _ => {
                let header = entry.header();
                let lossy_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let path = long_path.unwrap_or_else(|| lossy_text(&header.path_bytes()));
                let target = long_target.or_else(|| header.link_name_bytes().map(|bytes| lossy_text(&bytes)));
                return Ok(Some(TarEntry { path, target, kind, entry }));
            }
        };
        if long_field.replace(long_name(entry)?).is_some() {
            return Err(ArchiveError::Damaged("two long names for one entry".to_owned()));
        }
    }
}

fn long_name(entry: tar::Entry<'_, impl Read>) -> Result<String, ArchiveError> {
    if entry.size() > LONG_NAME_LIMIT {
        return Err(ArchiveError::Damaged("a name that is too long".to_owned()));
    }
    let mut bytes = Vec::new();
    entry.take(LONG_NAME_LIMIT).read_to_end(&mut bytes).map_err(damaged)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| ArchiveError::Damaged("a name that is not text".to_owned()))
}

/// Compares an entry with the manifest and passes its content to the sink.
fn check_entry(expected: &Entry, tar_entry: TarEntry<'_, impl Read>, sink: &mut dyn Sink) -> Result<(), ArchiveError> {
    let path = match expected.content {
        Content::Directory { .. } => tar_entry.path.strip_suffix('/').unwrap_or(&tar_entry.path),
        _ => &tar_entry.path,
    };
    if path != expected.path {
        return Err(unexpected(expected, &format!("{:?}", tar_entry.path)));
    }
    let wrong = |what| ArchiveError::Content { path: expected.path.clone(), what };
    let kind = match expected.content {
        Content::File { .. } => EntryType::Regular,
        Content::Directory { .. } => EntryType::Directory,
        Content::Symlink { .. } => EntryType::Symlink,
    };
    if tar_entry.kind != kind {
        return Err(wrong("its type differs"));
    }
    if tar_entry.entry.size() != expected.size() {
        return Err(wrong("its size differs"));
    }
    if let Content::Symlink { target } = &expected.content
        && tar_entry.target.as_ref() != Some(target)
    {
        return Err(wrong("its link target differs"));
    }
    let modified = tar_entry.entry.header().mtime().unwrap_or(0);
    let mut content = Source { read: Hashed::new(tar_entry.entry), failed: None };
    let stored = sink.entry(expected, modified, &mut content);
    if let Some(error) = content.failed {
        return Err(ArchiveError::Damaged(error));
    }
    stored.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => wrong("it has more data than the manifest says"),
        _ => ArchiveError::Sink(error),
    })?;
    // Verify also content that the sink did not read.
    io::copy(&mut content.read, &mut io::sink()).map_err(damaged)?;
    if content.read.bytes != expected.size() {
        return Err(wrong("its size differs"));
    }
    match expected.content {
        Content::File { sha256, .. } if content.read.sha256() != sha256 => Err(wrong("its content differs")),
        _ => Ok(()),
    }
}

/// Records read errors, to distinguish them from errors of the sink.
struct Source<R> {
    read: Hashed<R>,
    failed: Option<String>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(error.to_string());
            }
        })
    }
}

/// Accepts only zero bytes after the archive. Reads the compressed stream to its end, where its checksum is verified.
fn check_padding(remaining_bytes: &mut impl Read) -> Result<(), ArchiveError> {
    let mut buffer = [0; 4096];
    let mut padding_bytes = 0;
    loop {
        let count = remaining_bytes.read(&mut buffer).map_err(damaged)?;
        padding_bytes += count as u64;
        if count == 0 {
            return Ok(());
        }
        if padding_bytes > PADDING_LIMIT || buffer[..count].iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Trailing);
        }
    }
}
