//! The workspace's part of an exchange: its entries move, the folder itself stays, with whatever is
//! mounted there and whoever works in it.

use super::exchange_error::{ExchangeError, io_error};
use super::left_out::{OWN_FOLDER, is_left_out};
use crate::sys::beneath::{Folder, Kind};
use crate::sys::files;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Each of its steps finds from what is on the disk how far it came.
pub struct WorkspaceExchange<'a> {
    /// The folder in force; `None` when the workspace is left alone.
    pub workspace: Option<&'a Path>,
    /// Where its other content is: folders `in` and `out`.
    pub beside: &'a Path,
    /// The file that lists what is carried over.
    pub list: &'a Path,
    /// The file that lists the names that come in.
    pub names: &'a Path,
    /// Where in the workspace goes what is in the way.
    pub conflicts: &'a Path,
}

/// Writes down what is in a folder that is to come in, before anything moves. Names are bytes: not each
/// of them is text.
pub fn write_names(incoming: &Path, list: &Path) -> Result<(), ExchangeError> {
    let text = serde_json::to_vec(&names(incoming)?).map_err(|error| ExchangeError::Plan(error.to_string()))?;
    files::write_atomic(list, &text, 0o600).map_err(|source| io_error("write", list, source))
}

fn read_names(list: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let text = files::read_text(list, LIST_LIMIT).map_err(|source| io_error("read", list, source))?;
    serde_json::from_str(&text.unwrap_or_else(|| "[]".to_owned()))
        .map_err(|error| ExchangeError::Plan(error.to_string()))
}

/// A list of as many names as a backup may have, in bytes.
const LIST_LIMIT: u64 = 256 * 1024 * 1024;

/// The prefix of folders for what was in the way of an exchange. The user's, from then on.
pub const CONFLICTS: &str = ".leoflow-conflicts-";

fn is_own(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(OWN_FOLDER) || name.starts_with(CONFLICTS)
}

/// The names in a folder; none when it is not there.
fn names(folder: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let failed = |source| io_error("read", folder, source);
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>().map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

impl WorkspaceExchange<'_> {
    fn incoming(&self) -> PathBuf {
        self.beside.join("in")
    }

    fn out(&self) -> PathBuf {
        self.beside.join("out")
    }

    pub fn move_out(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        for folder in [workspace.to_owned(), self.out()] {
            fs::create_dir_all(&folder).map_err(|source| io_error("make", &folder, source))?;
        }
        for name in names(workspace)?.iter().filter(|name| !is_own(name)) {
            self.shift(&workspace.join(name), &self.out().join(name))?;
        }
        Ok(())
    }

    pub fn move_in(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        for name in names(&self.incoming())? {
            self.shift(&self.incoming().join(&name), &workspace.join(&name))?;
        }
        Ok(())
    }

    /// Only what has come from there: whatever else has appeared meanwhile is the user's.
    pub fn move_back_in(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        let incoming = self.incoming();
        fs::create_dir_all(&incoming).map_err(|source| io_error("make", &incoming, source))?;
        for name in read_names(self.names)? {
            let (from, to) = (workspace.join(&name), incoming.join(&name));
            if fs::symlink_metadata(&to).is_err() && fs::symlink_metadata(&from).is_ok() {
                self.shift(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Takes back that everything was moved out.
    pub fn move_back_out(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        for name in names(&self.out())? {
            self.shift(&self.out().join(&name), &workspace.join(&name))?;
        }
        Ok(())
    }

    /// Moves one entry, and never over another: what somebody has put into the workspace while an
    /// exchange was interrupted goes into a folder of its own there.
    fn shift(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        let failed = |source| io_error("move", from, source);
        match files::rename_to_new(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed),
        }
        let newcomer = if self.workspace.is_some_and(|workspace| to.parent() == Some(workspace)) { to } else { from };
        files::create_private_dir(self.conflicts).map_err(failed)?;
        let name = newcomer.file_name().unwrap_or_default();
        let free = (0..).map(|number: u32| match number {
            0 => self.conflicts.join(name),
            number => self.conflicts.join(format!("{}.{number}", name.to_string_lossy())),
        });
        for place in free {
            match files::rename_to_new(newcomer, &place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other.map_err(failed)?;
                    break;
                }
            }
        }
        if newcomer == to { files::rename_to_new(from, to).map_err(failed) } else { Ok(()) }
    }

    /// `.git`, virtual environments and the like go on in the place where they were.
    pub fn carry_over(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        for path in self.carried()? {
            let (from, to) = (self.out().join(&path), workspace.join(&path));
            let has_parent =
                to.parent().is_some_and(|parent| fs::symlink_metadata(parent).is_ok_and(|meta| meta.is_dir()));
            if has_parent && fs::symlink_metadata(&to).is_err() && fs::symlink_metadata(&from).is_ok() {
                fs::rename(&from, &to).map_err(|source| io_error("move", &from, source))?;
            }
        }
        Ok(())
    }

    pub fn carry_back(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        if !self.list.exists() {
            return Ok(());
        }
        for path in self.carried()? {
            let (from, to) = (workspace.join(&path), self.out().join(&path));
            if fs::symlink_metadata(&to).is_err() && fs::symlink_metadata(&from).is_ok() {
                fs::rename(&from, &to).map_err(|source| io_error("move", &from, source))?;
            }
        }
        let list = self.list.to_owned();
        files::remove_any(&list).map_err(|source| io_error("remove", &list, source))
    }

    /// What is carried over, found once and written down before the first of it moves.
    fn carried(&self) -> Result<Vec<PathBuf>, ExchangeError> {
        let list = self.list.to_owned();
        let failed = |source| io_error("read or write", &list, source);
        if let Some(text) = files::read_text(&list, LIST_LIMIT).map_err(failed)? {
            return serde_json::from_str(&text).map_err(|error| ExchangeError::Plan(error.to_string()));
        }
        let mut found = Vec::new();
        let out = self.out();
        let root = Folder::open(&out).map_err(|source| io_error("read", &out, source))?;
        find_left_out(&root, PathBuf::new(), &mut found);
        let text = serde_json::to_vec(&found).map_err(|error| ExchangeError::Plan(error.to_string()))?;
        files::write_atomic(&list, &text, 0o600).map_err(failed)?;
        Ok(found)
    }

    /// What was in force becomes what is kept.
    pub fn settle(&self) -> Result<(), ExchangeError> {
        let (incoming, out) = (self.incoming(), self.out());
        if out.exists() {
            if let Err(error) = fs::remove_dir(&incoming)
                && error.kind() != io::ErrorKind::NotFound
            {
                // Nothing should be left there; if something is, it is not in the way.
                let rest = self.beside.join("rest");
                files::remove_any(&rest)
                    .and_then(|()| fs::rename(&incoming, &rest))
                    .map_err(|source| io_error("move", &incoming, source))?;
            }
            fs::rename(&out, &incoming).map_err(|source| io_error("move", &out, source))?;
        }
        files::remove_any(self.list).map_err(|source| io_error("remove", self.list, source))
    }
}

fn find_left_out(root: &Folder, below: PathBuf, found: &mut Vec<PathBuf>) {
    let Ok(folder) = root.below(&below) else { return };
    for entry in folder.entries().unwrap_or_default() {
        let path = below.join(&entry.name);
        if path.to_str().is_none() {
            // The list could not hold it; it stays with what was replaced.
        } else if is_left_out(&folder, &entry) {
            found.push(path);
        } else if entry.kind == Kind::Folder {
            find_left_out(root, path, found);
        }
    }
}
