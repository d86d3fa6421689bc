//! Reading a backup, which believes nothing: entry by entry, each must be what the manifest says, in
//! its order, and nothing may come after the last.

use super::archive::{Hashed, zstd_decoder};
use super::manifest::{Content, Entry, MANIFEST, Manifest, ManifestError};
use std::io::{self, BufRead, BufReader, Read};
use tar::EntryType;

const BUFFER: usize = 256 * 1024;
/// Names longer than a header holds come in an entry of their own; none of ours is longer than this.
const LONG_NAME_LIMIT: u64 = 8 * 1024;
/// A file that is read for a plan, bytes.
const ONE_LIMIT: u64 = 1024 * 1024;
/// Zeros that fill a tar up to a whole record; common tools write up to 10 KiB.
const PADDING_LIMIT: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is not a backup: {0}")]
    NotABackup(&'static str),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("it cannot be read to its end: {0}")]
    Damaged(String),
    #[error("the manifest says {expected}, and the archive has {found}")]
    Unexpected { expected: String, found: String },
    #[error("{path} is not what the manifest says: {what}")]
    Content { path: String, what: &'static str },
    #[error("after the last entry comes more")]
    Trailing,
    /// Where the content goes could not take it.
    #[error("{0}")]
    Sink(io::Error),
    #[error("cannot be opened: {0}")]
    Open(io::Error),
}

/// Where a reader puts what it finds.
pub trait Sink {
    /// What is not read to its end is read and dropped. An error here is the sink's own.
    fn entry(&mut self, entry: &Entry, modified: u64, content: &mut dyn Read) -> io::Result<()>;
}

/// Only looks.
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
        let mut source = BufReader::with_capacity(BUFFER, source);
        let start = source.fill_buf().map_err(opening)?;
        let decoder: Box<dyn Read + 'a> = match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd_decoder(source).map_err(damaged)?),
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            [] => return Err(ArchiveError::NotABackup("it is empty")),
            _ => return Err(ArchiveError::NotABackup("it is neither zstd nor gzip")),
        };
        Ok(Self { tar: tar::Archive::new(Box::new(BufReader::with_capacity(BUFFER, decoder))) })
    }

    /// The manifest alone. What comes after it has not been looked at.
    pub fn manifest(&mut self) -> Result<Manifest, ArchiveError> {
        manifest(&mut self.tar.entries().map_err(damaged)?.raw(true))
    }

    /// Reads the manifest and the file `path`, where the archive has one, unverified: for plans only, see [`Self::read`].
    pub fn manifest_and_file(&mut self, path: &str) -> Result<(Manifest, Option<Vec<u8>>), ArchiveError> {
        let mut entries = self.tar.entries().map_err(damaged)?.raw(true);
        let manifest = manifest(&mut entries)?;
        while let Some(found) = next(&mut entries)? {
            if found.path == path && found.kind == EntryType::Regular {
                let mut content = Vec::new();
                found.entry.take(ONE_LIMIT).read_to_end(&mut content).map_err(damaged)?;
                return Ok((manifest, Some(content)));
            }
        }
        Ok((manifest, None))
    }

    /// Reads everything: each entry goes to `sink`, and is compared. Returns the manifest only when all
    /// was what it says, to the last byte.
    pub fn read(mut self, sink: &mut dyn Sink) -> Result<Manifest, ArchiveError> {
        let manifest = self.entries(sink)?;
        let mut rest = self.tar.into_inner();
        nothing_but_padding(&mut rest)?;
        Ok(manifest)
    }

    fn entries(&mut self, sink: &mut dyn Sink) -> Result<Manifest, ArchiveError> {
        let mut entries = self.tar.entries().map_err(damaged)?.raw(true);
        let manifest = manifest(&mut entries)?;
        for expected in &manifest.entries {
            let found = next(&mut entries)?.ok_or_else(|| unexpected(expected, "nothing more"))?;
            take(expected, found, sink)?;
        }
        match next(&mut entries)? {
            None => Ok(manifest),
            Some(extra) => Err(ArchiveError::Unexpected {
                expected: "nothing more".to_owned(),
                found: format!("{:?}", extra.path),
            }),
        }
    }
}

fn manifest<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Manifest, ArchiveError> {
    let first = next(entries)?.ok_or(ArchiveError::NotABackup("it has no manifest"))?;
    if first.path != MANIFEST || first.kind != EntryType::Regular {
        return Err(ArchiveError::NotABackup("it does not begin with a manifest"));
    }
    let size = first.entry.size();
    Ok(Manifest::read(first.entry, size)?)
}

/// What is there and cannot be read, or is not what it was: a decryption says so of changed bytes.
pub fn opening(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::InvalidData => damaged(error),
        _ => ArchiveError::Open(error),
    }
}

fn damaged(error: io::Error) -> ArchiveError {
    ArchiveError::Damaged(error.to_string())
}

fn unexpected(expected: &Entry, found: &str) -> ArchiveError {
    ArchiveError::Unexpected { expected: expected.path.clone(), found: found.to_owned() }
}

/// An entry of the tar with its whole name.
struct Found<'a, R: Read> {
    path: String,
    target: Option<String>,
    kind: EntryType,
    entry: tar::Entry<'a, R>,
}

/// The next entry that is more than a long name for the one after it. The tar library would read such
/// a name whole, however long it says it is; so it is asked for the raw entries.
fn next<'a, R: Read>(entries: &mut tar::Entries<'a, R>) -> Result<Option<Found<'a, R>>, ArchiveError> {
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
        let long = match kind {
            EntryType::GNULongName => &mut long_path,
            EntryType::GNULongLink => &mut long_target,
            _ => {
                let header = entry.header();
                let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let path = long_path.unwrap_or_else(|| own(&header.path_bytes()));
                let target = long_target.or_else(|| header.link_name_bytes().map(|bytes| own(&bytes)));
                return Ok(Some(Found { path, target, kind, entry }));
            }
        };
        if long.replace(long_name(entry)?).is_some() {
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

/// Compares what was found with what was expected, and passes its content on.
fn take(expected: &Entry, found: Found<'_, impl Read>, sink: &mut dyn Sink) -> Result<(), ArchiveError> {
    let path = match expected.content {
        Content::Directory { .. } => found.path.strip_suffix('/').unwrap_or(&found.path),
        _ => &found.path,
    };
    if path != expected.path {
        return Err(unexpected(expected, &format!("{:?}", found.path)));
    }
    let wrong = |what| ArchiveError::Content { path: expected.path.clone(), what };
    let kind = match expected.content {
        Content::File { .. } => EntryType::Regular,
        Content::Directory { .. } => EntryType::Directory,
        Content::Symlink { .. } => EntryType::Symlink,
    };
    if found.kind != kind {
        return Err(wrong("it is of another type"));
    }
    if found.entry.size() != expected.size() {
        return Err(wrong("it is of another size"));
    }
    if let Content::Symlink { target } = &expected.content
        && found.target.as_ref() != Some(target)
    {
        return Err(wrong("it leads elsewhere"));
    }
    let modified = found.entry.header().mtime().unwrap_or(0);
    let mut content = Source { read: Hashed::new(found.entry), failed: None };
    let sunk = sink.entry(expected, modified, &mut content);
    if let Some(error) = content.failed {
        return Err(ArchiveError::Damaged(error));
    }
    sunk.map_err(ArchiveError::Sink)?;
    // What the sink did not want counts all the same.
    io::copy(&mut content.read, &mut io::sink()).map_err(damaged)?;
    if content.read.bytes != expected.size() {
        return Err(wrong("it is of another size"));
    }
    match expected.content {
        Content::File { sha256, .. } if content.read.sha256() != sha256 => Err(wrong("its content is another")),
        _ => Ok(()),
    }
}

/// Remembers its own errors, so that they are not taken for the sink's.
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

/// A checksum at the end of the compressed stream is only compared when the end is read.
fn nothing_but_padding(rest: &mut impl Read) -> Result<(), ArchiveError> {
    let mut buffer = [0; 4096];
    let mut seen = 0;
    loop {
        let count = rest.read(&mut buffer).map_err(damaged)?;
        seen += count as u64;
        if count == 0 {
            return Ok(());
        }
        if seen > PADDING_LIMIT || buffer[..count].iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Trailing);
        }
    }
}
