//! The workspace's part of an exchange: its entries move, the folder itself stays, with whatever is
//! mounted there and whoever works in it.

use super::exchange::{ExchangeError, io_error};
use super::left_out::{OWN_FOLDER, is_left_out};
use crate::sys::beneath::{Folder, Kind};
use crate::sys::files;
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
        self.move_entries(workspace, Some(&self.out()))
    }

    pub fn move_in(&self) -> Result<(), ExchangeError> {
        self.move_entries(&self.incoming(), self.workspace)
    }

    pub fn move_back_in(&self) -> Result<(), ExchangeError> {
        let Some(workspace) = self.workspace else { return Ok(()) };
        let incoming = self.incoming();
        fs::create_dir_all(&incoming).map_err(|source| io_error("make", &incoming, source))?;
        self.move_entries(workspace, Some(&incoming))
    }

    /// Every entry of one folder into another, but for our own.
    fn move_entries(&self, from: &Path, to: Option<&Path>) -> Result<(), ExchangeError> {
        let Some(to) = to else { return Ok(()) };
        let entries = match fs::read_dir(from) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("read", from, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| io_error("read", from, source))?;
            if entry.file_name().to_string_lossy().starts_with(OWN_FOLDER) {
                continue;
            }
            fs::rename(entry.path(), to.join(entry.file_name()))
                .map_err(|source| io_error("move", &entry.path(), source))?;
        }
        Ok(())
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
        if !self.list.to_owned().exists() {
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
        if let Some(text) = files::read_text(&list, 64 * 1024 * 1024).map_err(failed)? {
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

    /// Takes back that everything was moved out.
    pub fn move_back_out(&self) -> Result<(), ExchangeError> {
        self.move_entries(&self.out(), self.workspace)
    }

    /// What was in force becomes what is kept.
    pub fn settle(&self) -> Result<(), ExchangeError> {
        let (incoming, out) = (self.incoming(), self.out());
        if out.exists() {
            match fs::remove_dir(&incoming) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &incoming, error));
                }
                _ => fs::rename(&out, &incoming).map_err(|source| io_error("move", &out, source))?,
            }
        }
        files::remove_any(self.list).map_err(|source| io_error("remove", self.list, source))
    }
}

fn find_left_out(root: &Folder, below: PathBuf, found: &mut Vec<PathBuf>) {
    let Ok(folder) = root.below(&below) else { return };
    for entry in folder.entries().unwrap_or_default() {
        let path = below.join(&entry.name);
        if is_left_out(&folder, &entry) {
            found.push(path);
        } else if entry.kind == Kind::Folder {
            find_left_out(root, path, found);
        }
    }
}
