//! `restore/<id>/`: the state that is not current. It first contains an unpacked backup; after the exchange it contains
//! the replaced state, so that `restore --undo` is the same exchange again.

use crate::backup::verify::scratch::RestoreId;
use leoflow_base::home::{Home, RESTORE_IN_WORKSPACE};
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::{files, folders};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of a restore.
#[derive(Debug, Clone)]
pub struct RestoreDir {
    pub id: RestoreId,
    folder: PathBuf,
}

leoflow_base::paths! { RestoreDir:
    /// Folder in this directory for the task logs that are not current.
    pub(crate) logs_here = folder / "task-logs",
    /// File with the names of the entries that an exchange moves into the task logs.
    pub(crate) log_names = folder / "log-names.json",
    /// File with the plan of the entries that an exchange carries over in the task logs.
    pub(crate) carried_logs = folder / "carried-logs.json",
    /// File with the `PreservedPaths`.
    pub(crate) preserved = folder / "stays.json",
    pub dump = folder / crate::backup::format::manifest::DUMP,
    /// File with the names of the entries that an exchange moves into the workspace.
    pub names = folder / "names.json",
    /// File with the plan of the entries that an exchange carries over in the workspace.
    pub carried = folder / "carried.json",
    retained = folder / "kept.json",
    /// Folder in this directory for the workspace content that is not current.
    pub(crate) workspace_here = folder / "workspace",
    /// File with the [`ExternalPaths`].
    external_paths = folder / "elsewhere.json",
}

impl RestoreDir {
    pub fn of(home: &Home, id: RestoreId) -> Self {
        let folder = home.restore().join(id.as_str());
        Self { id, folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the directory. Paths outside it are recorded first, for a later cleanup.
    pub fn create(&self, external_paths: &ExternalPaths) -> io::Result<()> {
        files::create_private_dir(&self.folder)?;
        files::write_atomic(&self.external_paths(), &serde_json::to_vec(external_paths)?, 0o600)
    }

    /// The `config.yaml` of the state before or after the exchange.
    pub fn config(&self, when: When) -> PathBuf {
        self.folder.join(format!("config.{}", when.name()))
    }

    /// The `setup.json` of the state before or after the exchange.
    pub fn receipt(&self, when: When) -> PathBuf {
        self.folder.join(format!("setup.{}", when.name()))
    }

    /// Creates and returns a folder from which files can be renamed into `root`: `in_home`, or a hidden folder in
    /// `root` if the two are on different file systems or mounts.
    pub(crate) fn choose_staging(&self, in_home: PathBuf, root: &Path) -> io::Result<PathBuf> {
        files::create_private_dir(&in_home)?;
        let nearest = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let probe = self.hidden_in(nearest);
        match std::fs::rename(&in_home, &probe) {
            Ok(()) => {
                std::fs::rename(&probe, &in_home)?;
                Ok(in_home)
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                std::fs::remove_dir(&in_home)?;
                folders::create_all(root)?;
                let in_root = self.hidden_in(root);
                files::create_dir_where_supported(&in_root)?;
                Ok(in_root)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the folder that `choose_staging` created.
    pub(crate) fn find_staging(&self, in_home: PathBuf, root: &Path) -> PathBuf {
        let in_root = self.hidden_in(root);
        if in_root.is_dir() { in_root } else { in_home }
    }

    /// File with the exported database of the state before or after the exchange, on an external server.
    pub fn content(&self, when: When) -> PathBuf {
        self.folder.join(format!("database.{}", when.name()))
    }

    /// Hidden folder in `root`, used if `root` is on another file system than the home.
    pub(crate) fn hidden_in(&self, root: &Path) -> PathBuf {
        root.join(format!("{RESTORE_IN_WORKSPACE}{}", self.id.as_str()))
    }

    /// Reads the record of the retained state; `None` if it is missing or unreadable.
    pub(crate) fn read_retained(&self) -> Option<RetainedState> {
        files::read_json(&self.retained(), 1024 * 1024).ok()?
    }

    /// True when the directory has no record of a retained state, because its restore did not complete. An unreadable
    /// record counts as one, so that no state is removed by mistake.
    pub fn is_leftover(&self) -> bool {
        let meta = std::fs::symlink_metadata(self.retained());
        meta.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// True when the directory contains the only copy of a workspace: the replaced state has no database, so no undo
    /// can restore it.
    pub(crate) fn is_only_copy(&self) -> bool {
        self.read_retained().is_some_and(|retained| retained.unreadable.is_some())
    }

    /// Removes the record of the retained state, so that the directory counts as a leftover.
    pub(crate) fn discard_retained(&self) -> io::Result<()> {
        files::remove_any(&self.retained())
    }

    /// Records that the directory contains a retained state. From then on `remove` keeps a workspace that the restore
    /// created.
    pub(crate) fn write_retained(&self, retained: &RetainedState, task_logs: &Path) -> io::Result<()> {
        let (workspace, task_logs) = (retained.workspace.clone(), Some(task_logs.to_owned()));
        let external_paths = ExternalPaths { workspace, made_workspace: false, task_logs };
        files::write_atomic(&self.external_paths(), &serde_json::to_vec(&external_paths)?, 0o600)?;
        files::write_atomic(&self.retained(), &serde_json::to_vec_pretty(retained)?, 0o600)
    }

    /// Removes the directory and its folders in the workspace and the task logs.
    pub fn remove(&self) -> io::Result<()> {
        let text = files::read_text(&self.external_paths(), 64 * 1024)?;
        // An unparsable record was torn by a kill before the restore created anything outside the directory.
        let external_paths =
            text.and_then(|text| serde_json::from_str::<ExternalPaths>(&text).ok()).unwrap_or_default();
        if let Some(logs) = &external_paths.task_logs {
            files::remove_any(&self.hidden_in(logs))?;
        }
        if let Some(workspace) = &external_paths.workspace {
            files::remove_any(&self.hidden_in(workspace))?;
            if external_paths.made_workspace {
                // Fails if the workspace is not empty.
                let _ = std::fs::remove_dir(workspace);
            }
        }
        files::remove_any(&self.folder)
    }
}

/// Paths of a restore outside the home.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalPaths {
    pub workspace: Option<PathBuf>,
    /// True when the restore created the workspace.
    pub made_workspace: bool,
    /// Canonical path of the task logs.
    pub task_logs: Option<PathBuf>,
}

leoflow_base::words! {
    /// The state that a file in the restore directory belongs to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum When: name {
        /// The state that is current after the exchange.
        After = "after",
        /// The state that was current before the exchange.
        Before = "before",
    }
}

/// Record of an exchange and of the state that it replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedState {
    /// RFC 3339.
    pub exchanged_at: String,
    /// Description of the state that became current.
    #[serde(rename = "in_force")]
    pub restored: String,
    /// Description of the replaced state, which is retained here.
    #[serde(rename = "set_aside")]
    pub replaced: String,
    /// Rows of each table in the state that became current, at the time of the exchange.
    pub rows: BTreeMap<String, i64>,
    pub workspace: Option<PathBuf>,
    /// Path of the cluster that was unreadable at the exchange; the retained state then has no database.
    pub unreadable: Option<PathBuf>,
}

impl RetainedState {
    pub fn now(restored: String, replaced: String, rows: BTreeMap<String, i64>, workspace: Option<PathBuf>) -> Self {
        Self { exchanged_at: clock::now_rfc3339(), restored, replaced, rows, workspace, unreadable: None }
    }
}

/// Lists all restore directories. An error is not an empty list: each directory stands for a database that stays.
pub fn all(home: &Home) -> io::Result<Vec<RestoreDir>> {
    let paths = folders::entries(&home.restore())?.into_iter();
    let ids = paths.filter_map(|path| RestoreId::parse(path.file_name()?.to_str()?));
    Ok(ids.map(|id| RestoreDir::of(home, id)).collect())
}

/// Finds the newest retained state, which `restore --undo` restores; `None` if there is none.
pub fn retained(home: &Home) -> io::Result<Option<(RestoreDir, RetainedState)>> {
    let mut states: Vec<(RestoreDir, RetainedState)> = all(home)?
        .into_iter()
        .filter_map(|restore_dir| restore_dir.read_retained().map(|retained| (restore_dir, retained)))
        .collect();
    states.sort_by(|a, b| a.1.exchanged_at.cmp(&b.1.exchanged_at));
    Ok(states.pop())
}
