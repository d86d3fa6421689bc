//! Writes the backup file: checks its name before the backup begins, writes a temporary file next to the destination
//! and renames it.

use super::collect::Collected;
use super::spool::{AtRest, Spool};
use super::{CreateError, Output};
use crate::backup::encryption::EncryptTo;
use crate::backup::format::archive::{ArchiveWriter, Compression, Hashed, is_encrypted_name};
use crate::backup::format::manifest::{Manifest, Sha256Hex};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::{disk, files, permissions};
use leoflow_base::sys::process::is_pid_alive;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The destination of a backup.
pub struct OutputFile<'a> {
    path: &'a Path,
    folder: &'a Path,
    compression: Compression,
    encrypt_to: &'a EncryptTo,
    /// Free disk space to leave, in bytes; 0 is no limit.
    keep_free: u64,
}

/// The content of a backup file.
pub struct Content<'a> {
    pub manifest: &'a Manifest,
    /// The manifest as JSON.
    pub text: Vec<u8>,
    pub collected: &'a Collected,
    /// Modification time of folders, links and the manifest, in seconds since 1970.
    pub now: u64,
}

impl<'a> OutputFile<'a> {
    /// Refuses a directory, and a name whose extension does not match the compression and encryption.
    pub fn check(&Output { path, encrypt_to, keep_free, .. }: &Output<'a>) -> Result<Self, CreateError> {
        let compression = Compression::of(path).ok_or_else(|| CreateError::Name(path.to_owned()))?;
        match (is_encrypted_name(path), encrypt_to.is_off()) {
            (false, false) => return Err(CreateError::PlainName(path.to_owned())),
            (true, true) => return Err(CreateError::NoRecipient(path.to_owned())),
            _ => {}
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let output = Self { path, folder, compression, encrypt_to, keep_free };
        match path.is_dir() {
            true => Err(output.write_error(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"))),
            false => Ok(output),
        }
    }

    pub fn write_error(&self, source: io::Error) -> CreateError {
        CreateError::Write { path: self.path.to_owned(), source }
    }

    /// Removes temporary files of killed backups from the folder; keeps those of live processes.
    pub fn remove_killed_attempts(&self) {
        let output_name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in fs::read_dir(self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((target, pid)) = files::neighbour_parts(&name) else { continue };
            let is_ours = ["leoflow-backup-", "automatic-"].iter().any(|prefix| target.starts_with(prefix));
            let is_attempt = target == output_name || (is_ours && Compression::of(Path::new(target)).is_some());
            if is_attempt && !is_pid_alive(pid) {
                // Errors are ignored: the next backup tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Opens a spool next to the destination.
    pub fn open_spool(&self) -> Result<Spool, CreateError> {
        let at_rest = if self.encrypt_to.is_off() { AtRest::Plain } else { AtRest::Sealed };
        Spool::new(self.folder, self.keep_free, at_rest).map_err(|source| self.write_error(source))
    }

    /// Fails if the file would not leave the space to keep free.
    pub fn require_space(&self, manifest: &Manifest) -> Result<(), CreateError> {
        let required = self.keep_free + manifest.total_size();
        if self.keep_free > 0 && disk::free_bytes(self.folder).map_err(|source| self.write_error(source))? < required {
            let reason = "the disk would run out of space";
            return Err(self.write_error(io::Error::new(io::ErrorKind::StorageFull, reason)));
        }
        Ok(())
    }

    /// Writes the backup next to its destination and renames it. Returns its size in bytes and its hash.
    pub fn write(&self, content: &Content<'_>, reporter: &dyn Reporter) -> Result<(u64, Sha256Hex), CreateError> {
        let temporary = files::temporary_neighbour(self.path);
        files::remove_any(&temporary).map_err(|source| self.write_error(source))?;
        let written = self.write_to(&temporary, content, reporter);
        if written.is_err() {
            // The caller reports the first error, so one from the cleanup is ignored.
            let _ = files::remove_any(&temporary);
        }
        written.map_err(|source| self.write_error(source))
    }

    fn write_to(
        &self,
        temporary: &Path,
        content: &Content<'_>,
        reporter: &dyn Reporter,
    ) -> io::Result<(u64, Sha256Hex)> {
        let Content { manifest, text, collected, now } = content;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        permissions::set_where_supported(&file, 0o600)?;
        let hashed = Hashed::new(BufWriter::with_capacity(256 * 1024, file));
        let mut archive = ArchiveWriter::begin(self.encrypt_to.writer(hashed)?, self.compression, text, *now)?;
        let (total, mut done) = (manifest.total_size(), 0);
        for item in &collected.items {
            match &item.piece {
                Some(piece) => archive.add(&item.entry, item.modified, collected.spool.read(piece))?,
                None => archive.add(&item.entry, *now, io::empty())?,
            }
            done += item.entry.stored();
            if item.entry.is_file() {
                reporter.report(Progress::Bytes { what: "Writing the backup".to_owned(), done, total });
            }
        }
        let mut hashed = archive.finish()?.finish()?;
        hashed.flush()?;
        files::sync(hashed.inner.get_ref())?;
        checkpoint("backup.written");
        files::rename_durably(temporary, self.path)?;
        Ok((hashed.bytes, hashed.sha256()))
    }
}
