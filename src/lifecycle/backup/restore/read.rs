//! Reads a backup file: its manifest, its configuration, or all of it.

use super::restore_error::RestoreError;
use crate::backup::encryption::Input;
use crate::backup::format::archive_read::{ArchiveError, ArchiveReader, Sink, open_error};
use crate::backup::format::manifest::{CONFIG, Manifest};
use leoflow_base::home::progress::{Progress, Reporter};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

fn open(input: &Path) -> Result<File, RestoreError> {
    let failed = |source| RestoreError::Open { path: input.to_owned(), source };
    let file = File::open(input).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))),
    }
}

fn archive_error(input: &Path) -> impl Fn(ArchiveError) -> RestoreError + '_ {
    |source| RestoreError::Archive { path: input.to_owned(), source }
}

/// Reads the manifest, without verifying the other files.
pub fn peek(input: &Input) -> Result<Manifest, RestoreError> {
    let mut reader = open_archive(input, open(&input.path)?)?;
    reader.manifest().map_err(archive_error(&input.path))
}

/// Reads the manifest and `config.yaml`, for a plan.
pub fn peek_config(input: &Input) -> Result<(Manifest, String), RestoreError> {
    let mut reader = open_archive(input, open(&input.path)?)?;
    let (manifest, config) = reader.manifest_and_file(CONFIG).map_err(archive_error(&input.path))?;
    Ok((manifest, String::from_utf8_lossy(&config.unwrap_or_default()).into_owned()))
}

fn open_archive<'a>(input: &Input, file: impl Read + 'a) -> Result<ArchiveReader<'a>, RestoreError> {
    let archive_error = archive_error(&input.path);
    let opened = input.keys.open(file).map_err(|error| archive_error(open_error(error)))?;
    let content = opened.map_err(|why| RestoreError::NotOpened { path: input.path.clone(), why })?;
    ArchiveReader::new(content).map_err(archive_error)
}

/// Reads the whole backup, verifies it against its manifest, and passes the entries to `sink`.
pub fn read(input: &Input, sink: &mut dyn Sink, reporter: &dyn Reporter) -> Result<Manifest, RestoreError> {
    let file = open(&input.path)?;
    let total = file.metadata().map_or(0, |meta| meta.len());
    let source = ProgressReader { file, done: 0, reported: 0, total, reporter };
    open_archive(input, source)?.read(sink).map_err(archive_error(&input.path))
}

/// Reports how much of the file has been read.
struct ProgressReader<'a> {
    file: File,
    done: u64,
    reported: u64,
    /// Size in bytes.
    total: u64,
    reporter: &'a dyn Reporter,
}

/// Bytes between two progress reports.
const STRIDE: u64 = 4 * 1024 * 1024;

impl Read for ProgressReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.done += count as u64;
        if self.done - self.reported >= STRIDE {
            self.reported = self.done;
            let what = "Checking the backup".to_owned();
            self.reporter.report(Progress::Bytes { what, done: self.done, total: self.total });
        }
        Ok(count)
    }
}
