//! Copies the workspace and the newest task logs into the spool. Lists each path that cannot be copied, with the
//! reason.

use super::own_backups::OwnBackups;
use super::selection::{self, BELONGS_TO_LEOFLOW, Selection, Visit};
use super::spool::{Piece, Spool, SpoolError};
use crate::backup::format::manifest::{Content, ENTRY_LIMIT, Entry, Skipped, TASK_LOGS, WORKSPACE};
use leoflow_base::sys::fs::beneath::{self, Folder};
use leoflow_base::sys::fs::{folders, sparse};
use std::convert::Infallible;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Contents of the archive, in order.
pub struct Collected {
    pub spool: Spool,
    pub items: Vec<Item>,
    pub skipped: Vec<Skipped>,
    /// Paths excluded on purpose, see `selection`.
    pub left_out: Vec<String>,
}

/// An entry of the archive with its content in the spool.
pub struct Item {
    pub entry: Entry,
    /// The content of a file; `None` for folders and links.
    pub piece: Option<Piece>,
    /// Modification time in seconds since 1970.
    pub modified: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("a backup contains at most {ENTRY_LIMIT} files, folders and links of the workspace and task logs")]
    TooMany,
    #[error("cannot write the backup: {0}")]
    Spool(io::Error),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// Maximum number of skipped paths that are listed.
const SKIPPED_LIMIT: usize = 10_000;
/// Number of attempts to copy a file that changes during the copy.
const TRIES: u32 = 3;

impl Collected {
    pub fn new(spool: Spool) -> Self {
        Self { spool, items: Vec::new(), skipped: Vec::new(), left_out: Vec::new() }
    }

    /// Adds content from memory.
    pub fn add_bytes(&mut self, path: &str, bytes: &[u8], modified: u64) -> Result<(), CollectError> {
        let piece = self.spool.add(&mut &*bytes).map_err(|error| CollectError::Spool(io_cause(error)))?;
        self.add_piece(path, piece, modified);
        Ok(())
    }

    /// Adds content that is already in the spool.
    pub fn add_piece(&mut self, path: &str, piece: Piece, modified: u64) {
        let Piece { size, sha256, .. } = piece;
        let content = Content::File { size, sha256, executable: false, private: false, stored: None };
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
        // The list is limited; its last entry says that there are more.
        if self.skipped.len() > SKIPPED_LIMIT {
            return;
        }
        if self.skipped.len() == SKIPPED_LIMIT {
            let (path, reason) = ("workspace".to_owned(), "more files could not be copied".to_owned());
            self.skipped.push(Skipped { path, reason });
            return;
        }
        self.skipped.push(Skipped { path: path.to_owned(), reason: reason.into() });
    }

    /// Adds the workspace without excluded files. `excluded_folders` are folders of Leoflow that may be inside it.
    pub fn add_workspace(
        &mut self,
        root: &Path,
        excluded_folders: &[PathBuf],
        own: &OwnBackups,
    ) -> Result<(), CollectError> {
        let root_folder = Folder::open(root).map_err(|source| CollectError::Read { path: root.to_owned(), source })?;
        self.push(WORKSPACE.to_owned(), Content::Directory { private: false }, None, 0)?;
        let excluded_in_root: Vec<&Path> =
            excluded_folders.iter().filter_map(|path| path.strip_prefix(root).ok()).collect();
        let select = |folder: &Folder, entry: &beneath::Entry, path: &Path| match excluded_in_root.contains(&path) {
            true => Selection::Skipped(BELONGS_TO_LEOFLOW.to_owned()),
            false => selection::in_workspace(folder, entry, path, own),
        };
        selection::walk(&root_folder, &select, &mut |found| {
            match found {
                Visit::Unreadable { path, error } => {
                    self.skip(&join_path(WORKSPACE, path), format!("cannot read it: {error}"));
                }
                Visit::Entry { folder, entry, path, selection } => {
                    let path = join_path(WORKSPACE, path);
                    match selection {
                        Selection::File => self.add_file(folder, entry, path)?,
                        Selection::Folder => {
                            self.push(path, Content::Directory { private: entry.is_private }, None, 0)?;
                        }
                        Selection::Link { target } => self.push(path, Content::Symlink { target }, None, 0)?,
                        Selection::Excluded => self.left_out.push(path),
                        Selection::Skipped(reason) => self.skip(&path, reason),
                    }
                }
            }
            Ok(())
        })
    }

    /// Adds a file; lists it as skipped if it changes during each attempt to copy it.
    fn add_file(&mut self, folder: &Folder, entry: &beneath::Entry, path: String) -> Result<(), CollectError> {
        for _ in 0..TRIES {
            let Some((before, file, piece)) = self.copy_file(folder.open_file(&entry.name), &path)? else {
                return Ok(());
            };
            if piece.size == before.len() && file.metadata().is_ok_and(|after| is_unchanged(&before, &after)) {
                let mode = before.permissions().mode();
                let (executable, private) = (mode & 0o100 != 0, mode & 0o077 == 0);
                let stored = stored_bytes(&before, &piece);
                let content = Content::File { size: piece.size, sha256: piece.sha256, executable, private, stored };
                return self.push(path, content, Some(piece), modified_seconds(&before));
            }
            self.spool.truncate_to(piece);
        }
        self.skip(&path, "it changes while being read");
        Ok(())
    }

    /// Adds the newest task logs, in total up to `budget` bytes.
    pub fn add_task_logs(&mut self, root: &Path, budget: u64) -> Result<(), CollectError> {
        if !root.is_dir() {
            // A new instance has no logs.
            if let Err(error) = folders::entries(root) {
                self.skip(TASK_LOGS, format!("cannot read it: {error}"));
            }
            return Ok(());
        }
        let root_folder = Folder::open(root).map_err(|source| CollectError::Read { path: root.to_owned(), source })?;
        let mut logs = self.find_logs(&root_folder);
        logs.sort_by_key(|log| std::cmp::Reverse(log.modified));
        let mut remaining = budget;
        let fits = logs.iter().take_while(|log| {
            let fits = log.size <= remaining;
            remaining = remaining.saturating_sub(log.size);
            fits
        });
        let count = fits.count();
        if count < logs.len() {
            let bytes: u64 = logs[count..].iter().map(|log| log.size).sum();
            let reason = format!(
                "the {} oldest logs ({bytes} bytes) exceed the limit backup.task_logs_bytes ({budget})",
                logs.len() - count
            );
            self.skip(TASK_LOGS, reason);
            logs.truncate(count);
        }
        logs.sort_by(|a, b| a.path.cmp(&b.path));
        self.push(TASK_LOGS.to_owned(), Content::Directory { private: false }, None, 0)?;
        let mut last_parent: Option<PathBuf> = None;
        for log in &logs {
            self.add_parents(&log.path, &mut last_parent)?;
            self.add_log(&root_folder, log)?;
        }
        Ok(())
    }

    /// Lists the regular files below the task logs. Leoflow creates no links or special files there.
    fn find_logs(&mut self, root: &Folder) -> Vec<Log> {
        let mut logs = Vec::new();
        let Ok(()) = selection::walk(root, &selection::in_task_logs, &mut |found| -> Result<(), Infallible> {
            match found {
                Visit::Unreadable { path, error } => {
                    self.skip(&join_path(TASK_LOGS, path), format!("cannot read it: {error}"));
                }
                Visit::Entry { entry, path, selection: Selection::File, .. } => {
                    logs.push(Log { path: path.to_owned(), size: entry.size, modified: entry.modified });
                }
                Visit::Entry { path, selection: Selection::Skipped(reason), .. } => {
                    self.skip(&join_path(TASK_LOGS, path), reason);
                }
                Visit::Entry { .. } => {}
            }
            Ok(())
        });
        logs
    }

    /// Adds the folders of `path` that are not folders of `last_parent`, the parent of the previous log.
    fn add_parents(&mut self, path: &Path, last_parent: &mut Option<PathBuf>) -> Result<(), CollectError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let is_added = |folder: &Path| last_parent.as_ref().is_some_and(|last_parent| last_parent.starts_with(folder));
        let mut missing: Vec<&Path> =
            parent.ancestors().filter(|folder| !folder.as_os_str().is_empty() && !is_added(folder)).collect();
        missing.reverse();
        for folder in missing {
            self.push(join_path(TASK_LOGS, folder), Content::Directory { private: false }, None, 0)?;
        }
        *last_parent = Some(parent.to_owned());
        Ok(())
    }

    /// Adds a log, up to its size at the time it is opened: its task may still be writing.
    fn add_log(&mut self, root: &Folder, log: &Log) -> Result<(), CollectError> {
        let path = join_path(TASK_LOGS, &log.path);
        let (folder, name) = (log.path.parent().unwrap_or(Path::new("")), log.path.file_name().unwrap_or_default());
        let opened = root.below(folder).and_then(|folder| folder.open_file(name));
        let Some((before, file, piece)) = self.copy_file(opened, &path)? else { return Ok(()) };
        if file.metadata().is_ok_and(|after| after.len() > before.len()) {
            self.skip(&path, format!("it is still being written; its first {} bytes are included", piece.size));
        }
        let stored = stored_bytes(&before, &piece);
        let Piece { size, sha256, .. } = piece;
        let content = Content::File { size, sha256, executable: false, private: false, stored };
        self.push(path, content, Some(piece), modified_seconds(&before))
    }

    /// Copies a file into the spool, up to its size at the time it was opened. Lists an unreadable file as skipped and
    /// returns `None`.
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
                self.skip(path, format!("cannot read it: {error}"));
                Ok(None)
            }
            Err(SpoolError::Spool(error)) => Err(CollectError::Spool(error)),
        }
    }
}

/// A task log.
struct Log {
    /// Relative to the folder of the task logs.
    path: PathBuf,
    /// Bytes.
    size: u64,
    /// Modification time in seconds since 1970.
    modified: i64,
}

fn io_cause(error: SpoolError) -> io::Error {
    match error {
        SpoolError::Source(error) | SpoolError::Spool(error) => error,
    }
}

/// Bytes of a sparse file outside its holes; `None` for other files, whose blocks of zeros a restore writes.
fn stored_bytes(meta: &Metadata, piece: &Piece) -> Option<u64> {
    (sparse::is_sparse(meta) && piece.stored() < piece.size).then(|| piece.stored())
}

/// True when a file did not change while it was read.
fn is_unchanged(before: &Metadata, after: &Metadata) -> bool {
    before.len() == after.len() && (before.mtime(), before.mtime_nsec()) == (after.mtime(), after.mtime_nsec())
}

/// Modification time in seconds since 1970.
fn modified_seconds(meta: &Metadata) -> u64 {
    u64::try_from(meta.mtime()).unwrap_or(0)
}

/// Path in the archive of a path relative to the folder `top`.
fn join_path(top: &str, path: &Path) -> String {
    if path.as_os_str().is_empty() { top.to_owned() } else { format!("{top}/{}", path.to_string_lossy()) }
}
