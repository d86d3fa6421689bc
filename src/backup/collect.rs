//! Copying files into the spool: the workspace, and the newest task logs. What cannot be taken is
//! said, by name and reason; nothing is left out in silence.

use super::manifest::{Content, ENTRY_LIMIT, Entry, Skipped, TASK_LOGS, WORKSPACE};
use super::own_backups::OwnBackups;
use super::selection::{self, OWN, Selection};
use super::spool::{Piece, Spool, SpoolError};
use crate::sys::beneath::{self, Folder};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What goes into the archive, in its order.
pub struct Collected {
    pub spool: Spool,
    pub items: Vec<Item>,
    pub skipped: Vec<Skipped>,
    /// Paths of what is left out on purpose.
    pub left_out: Vec<String>,
}

pub struct Item {
    pub entry: Entry,
    pub piece: Option<Piece>,
    /// Seconds since 1970.
    pub modified: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("there are more than {ENTRY_LIMIT} files in the workspace")]
    TooMany,
    #[error("cannot write the backup: {0}")]
    Spool(io::Error),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// What is listed of what could not be taken.
const SKIPPED_LIMIT: usize = 10_000;
/// How often a file that changes under the reader is read before it is left out.
const TRIES: u32 = 3;

impl Collected {
    pub fn new(spool: Spool) -> Self {
        Self { spool, items: Vec::new(), skipped: Vec::new(), left_out: Vec::new() }
    }

    /// Adds content that is in memory.
    pub fn add_bytes(&mut self, path: &str, bytes: &[u8], modified: u64) -> Result<(), CollectError> {
        let piece = self.spool.add(&mut &*bytes).map_err(|error| CollectError::Spool(io_of(error)))?;
        self.add_piece(path, piece, modified);
        Ok(())
    }

    pub fn add_piece(&mut self, path: &str, piece: Piece, modified: u64) {
        let content = Content::File { size: piece.size, sha256: piece.sha256, executable: false, private: false };
        self.items.push(Item { entry: Entry { path: path.to_owned(), content }, piece: Some(piece), modified });
    }

    fn push(
        &mut self,
        path: String,
        content: Content,
        piece: Option<Piece>,
        modified: u64,
    ) -> Result<(), CollectError> {
        if self.items.len() >= ENTRY_LIMIT {
            return Err(CollectError::TooMany);
        }
        self.items.push(Item { entry: Entry { path, content }, piece, modified });
        Ok(())
    }

    fn skip(&mut self, path: &str, reason: impl Into<String>) {
        // As many as anybody reads; the last one says that there are more.
        if self.skipped.len() > SKIPPED_LIMIT {
            return;
        }
        if self.skipped.len() == SKIPPED_LIMIT {
            let (path, reason) = ("workspace".to_owned(), "there is more that could not be taken".to_owned());
            self.skipped.push(Skipped { path, reason });
            return;
        }
        self.skipped.push(Skipped { path: path.to_owned(), reason: reason.into() });
    }

    /// Adds the workspace, less what other tools keep. `not` are folders of ours that may be below it.
    pub fn add_workspace(&mut self, root: &Path, not: &[PathBuf], own: &OwnBackups) -> Result<(), CollectError> {
        let open = Folder::open(root).map_err(|source| CollectError::Read { path: root.to_owned(), source })?;
        self.push(WORKSPACE.to_owned(), Content::Directory { private: false }, None, 0)?;
        let inside: Vec<&Path> = not.iter().filter_map(|path| path.strip_prefix(root).ok()).collect();
        self.walk(&open, PathBuf::new(), &inside, own)
    }

    fn walk(&mut self, root: &Folder, below: PathBuf, not: &[&Path], own: &OwnBackups) -> Result<(), CollectError> {
        let listed = root.below(&below).and_then(|folder| folder.entries().map(|entries| (folder, entries)));
        let (folder, entries) = match listed {
            Ok(both) => both,
            Err(error) => {
                self.skip(&shown(&below), format!("it cannot be read: {error}"));
                return Ok(());
            }
        };
        for entry in entries {
            let path = below.join(&entry.name);
            let shown = shown(&path);
            if not.contains(&path.as_path()) {
                self.skip(&shown, OWN);
                continue;
            }
            match selection::in_workspace(&folder, &entry, &path, own) {
                Selection::File => self.add_file(&folder, &entry, shown)?,
                Selection::Folder => {
                    self.push(shown, Content::Directory { private: entry.is_private }, None, 0)?;
                    self.walk(root, path, not, own)?;
                }
                Selection::Link { target } => self.push(shown, Content::Symlink { target }, None, 0)?,
                Selection::LeftOut => self.left_out.push(shown),
                Selection::Skipped(reason) => self.skip(&shown, reason),
            }
        }
        Ok(())
    }

    fn add_file(&mut self, folder: &Folder, entry: &beneath::Entry, path: String) -> Result<(), CollectError> {
        for _ in 0..TRIES {
            let Some((before, file, piece)) = self.copy_file(folder.open_file(&entry.name), &path)? else {
                return Ok(());
            };
            if piece.size == before.len() && file.metadata().is_ok_and(|after| same(&before, &after)) {
                let mode = before.permissions().mode();
                let (executable, private) = (mode & 0o100 != 0, mode & 0o077 == 0);
                let content = Content::File { size: piece.size, sha256: piece.sha256, executable, private };
                return self.push(path, content, Some(piece), seconds(&before));
            }
            self.spool.take_back(piece);
        }
        self.skip(&path, "it changes while it is read");
        Ok(())
    }

    /// Adds task logs, the newest first, up to `budget` bytes of them.
    pub fn add_task_logs(&mut self, root: &Path, budget: u64) -> Result<(), CollectError> {
        if !root.is_dir() {
            return Ok(());
        }
        let open = Folder::open(root).map_err(|source| CollectError::Read { path: root.to_owned(), source })?;
        let mut logs = Vec::new();
        self.find_logs(&open, PathBuf::new(), &mut logs);
        logs.sort_by_key(|log| std::cmp::Reverse(log.modified));
        let mut left = budget;
        let fits = logs.iter().take_while(|log| {
            let fits = log.size <= left;
            left = left.saturating_sub(log.size);
            fits
        });
        let count = fits.count();
        if count < logs.len() {
            let bytes: u64 = logs[count..].iter().map(|log| log.size).sum();
            let reason = format!(
                "the {} oldest logs, {bytes} bytes, are over the limit of backup.task_logs_bytes, {budget}",
                logs.len() - count
            );
            self.skip(TASK_LOGS, reason);
            logs.truncate(count);
        }
        logs.sort_by(|one, other| one.path.cmp(&other.path));
        self.push(TASK_LOGS.to_owned(), Content::Directory { private: false }, None, 0)?;
        let mut made: Option<PathBuf> = None;
        for log in &logs {
            self.add_parents(&log.path, &mut made)?;
            self.add_log(&open, log)?;
        }
        Ok(())
    }

    /// Regular files below the task logs; nothing else is put there by us.
    fn find_logs(&mut self, root: &Folder, folder: PathBuf, found: &mut Vec<Log>) {
        let (entries, open) = match root.below(&folder).and_then(|open| Ok((open.entries()?, open))) {
            Ok(both) => both,
            Err(error) => {
                self.skip(&below(TASK_LOGS, &folder), format!("it cannot be read: {error}"));
                return;
            }
        };
        for entry in entries {
            let path = folder.join(&entry.name);
            match selection::in_task_logs(&open, &entry, &path) {
                Selection::Folder => self.find_logs(root, path, found),
                Selection::File => found.push(Log { path, size: entry.size, modified: entry.modified }),
                Selection::Skipped(reason) => self.skip(&below(TASK_LOGS, &path), reason),
                Selection::Link { .. } | Selection::LeftOut => {}
            }
        }
    }

    /// The folders of `path` that the entry before it did not have.
    fn add_parents(&mut self, path: &Path, made: &mut Option<PathBuf>) -> Result<(), CollectError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let has = |folder: &Path| made.as_ref().is_some_and(|made| made.starts_with(folder));
        let mut missing: Vec<&Path> =
            parent.ancestors().filter(|folder| !folder.as_os_str().is_empty() && !has(folder)).collect();
        missing.reverse();
        for folder in missing {
            self.push(below(TASK_LOGS, folder), Content::Directory { private: false }, None, 0)?;
        }
        *made = Some(parent.to_owned());
        Ok(())
    }

    /// A log that is still being written goes in as far as it is.
    fn add_log(&mut self, root: &Folder, log: &Log) -> Result<(), CollectError> {
        let path = below(TASK_LOGS, &log.path);
        let (folder, name) = (log.path.parent().unwrap_or(Path::new("")), log.path.file_name().unwrap_or_default());
        let opened = root.below(folder).and_then(|folder| folder.open_file(name));
        let Some((before, file, piece)) = self.copy_file(opened, &path)? else { return Ok(()) };
        if file.metadata().is_ok_and(|after| after.len() > before.len()) {
            self.skip(&path, format!("it is still being written; its first {} bytes are in", piece.size));
        }
        let content = Content::File { size: piece.size, sha256: piece.sha256, executable: false, private: false };
        self.push(path, content, Some(piece), seconds(&before))
    }

    /// Copies a file into the spool, as far as it was when it was opened. `None` for one that cannot be
    /// read, which is then said.
    fn copy_file(
        &mut self,
        opened: io::Result<File>,
        path: &str,
    ) -> Result<Option<(Metadata, File, Piece)>, CollectError> {
        let copied = opened.and_then(|file| Ok((file.metadata()?, file))).map_err(SpoolError::Source);
        let copied = copied.and_then(|(before, mut file)| {
            let piece = self.spool.add(&mut (&mut file).take(before.len()))?;
            Ok((before, file, piece))
        });
        match copied {
            Ok(copied) => Ok(Some(copied)),
            Err(SpoolError::Source(error)) => {
                self.skip(path, format!("it cannot be read: {error}"));
                Ok(None)
            }
            Err(SpoolError::Spool(error)) => Err(CollectError::Spool(error)),
        }
    }
}

struct Log {
    path: PathBuf,
    size: u64,
    modified: i64,
}

fn io_of(error: SpoolError) -> io::Error {
    match error {
        SpoolError::Source(error) | SpoolError::Spool(error) => error,
    }
}

/// Whether a file stayed as it was while it was read.
fn same(before: &Metadata, after: &Metadata) -> bool {
    before.len() == after.len() && (before.mtime(), before.mtime_nsec()) == (after.mtime(), after.mtime_nsec())
}

fn seconds(meta: &Metadata) -> u64 {
    u64::try_from(meta.mtime()).unwrap_or(0)
}

fn below(top: &str, path: &Path) -> String {
    if path.as_os_str().is_empty() { top.to_owned() } else { format!("{top}/{}", path.to_string_lossy()) }
}

fn shown(path: &Path) -> String {
    below(WORKSPACE, path)
}
