//! `restore/<id>/`: what is not in force. First it holds what a backup brought; once that was exchanged
//! for what was in force, it holds what was replaced, so that `restore --undo` is the same exchange again.

use super::left_out::OWN_FOLDER;
use super::scratch::RestoreId;
use crate::home::Home;
use crate::sys::{clock, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of one restore.
#[derive(Debug, Clone)]
pub struct Side {
    pub id: RestoreId,
    folder: PathBuf,
}

impl Side {
    pub fn of(home: &Home, id: RestoreId) -> Self {
        let folder = home.restore().join(id.as_str());
        Self { id, folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder. What it will have in another place is written down first, for whoever has to
    /// remove it.
    pub fn create(&self, elsewhere: &Elsewhere) -> io::Result<()> {
        files::create_private_dir(&self.folder)?;
        files::write_atomic(&self.folder.join(ELSEWHERE), &serde_json::to_vec(elsewhere)?, 0o600)
    }

    /// What is to come into force, and what was.
    pub fn config(&self, when: When) -> PathBuf {
        self.folder.join(format!("config.{}", when.name()))
    }

    pub fn receipt(&self, when: When) -> PathBuf {
        self.folder.join(format!("setup.{}", when.name()))
    }

    /// Where the other content of the task logs is when it can be in the home.
    pub fn logs_here(&self) -> PathBuf {
        self.folder.join("task-logs")
    }

    /// The names that come into the task logs, and what is carried over there.
    pub fn log_names(&self) -> PathBuf {
        self.folder.join("log-names.json")
    }

    pub fn carried_logs(&self) -> PathBuf {
        self.folder.join("carried-logs.json")
    }

    /// What stays in its place by the backup's own account.
    pub fn stays(&self) -> PathBuf {
        self.folder.join("stays.json")
    }

    /// Where the other content of the folder `root` can be so that renames lead from there into it: `here`, in the home,
    /// or in a hidden folder of `root` when that is on another file system (or mount).
    pub fn place_beside(&self, here: PathBuf, root: &Path) -> io::Result<PathBuf> {
        files::create_private_dir(&here)?;
        let nearest = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let probe = self.hidden_in(nearest);
        match std::fs::rename(&here, &probe) {
            Ok(()) => {
                std::fs::rename(&probe, &here)?;
                Ok(here)
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                std::fs::remove_dir(&here)?;
                std::fs::create_dir_all(root)?;
                let there = self.hidden_in(root);
                files::create_private_dir(&there)?;
                Ok(there)
            }
            Err(error) => Err(error),
        }
    }

    /// Where `place_beside` has put it.
    pub fn found_beside(&self, here: PathBuf, root: &Path) -> PathBuf {
        let there = self.hidden_in(root);
        if there.is_dir() { there } else { here }
    }

    /// What is in the database, where that cannot be beside the one in force.
    pub fn content(&self, when: When) -> PathBuf {
        self.folder.join(format!("database.{}", when.name()))
    }

    pub fn dump(&self) -> PathBuf {
        self.folder.join(super::manifest::DUMP)
    }

    /// The names that come into the workspace.
    pub fn names(&self) -> PathBuf {
        self.folder.join("names.json")
    }

    /// Which of the things that a backup leaves out an exchange has carried over.
    pub fn carried(&self) -> PathBuf {
        self.folder.join("carried.json")
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("kept.json")
    }

    /// Where the other content of the workspace is when it can be in the home.
    pub fn workspace_here(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    /// And where it is when a rename cannot lead from the home into the folder `root`.
    pub fn hidden_in(&self, root: &Path) -> PathBuf {
        root.join(format!("{OWN_FOLDER}{}", self.id.as_str()))
    }

    /// What is remembered of it; `None` also when that cannot be read.
    pub fn read_kept(&self) -> Option<Kept> {
        let text = files::read_text(&self.kept(), 1024 * 1024).ok()??;
        serde_json::from_str(&text).ok()
    }

    /// Whether nothing was ever kept here: an attempt that did not come into force. What cannot be told
    /// is not one, so that nothing is removed by mistake.
    pub fn is_stray(&self) -> bool {
        let looked = std::fs::symlink_metadata(self.kept());
        looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Makes it a stray.
    pub fn forget_kept(&self) -> io::Result<()> {
        files::remove_any(&self.kept())
    }

    /// From here on it is the user's old state, and no folder that was made for it goes with it.
    pub fn write_kept(&self, kept: &Kept, task_logs: &Path) -> io::Result<()> {
        let (workspace, task_logs) = (kept.workspace.clone(), Some(task_logs.to_owned()));
        let elsewhere = Elsewhere { workspace, made_workspace: false, task_logs };
        files::write_atomic(&self.folder.join(ELSEWHERE), &serde_json::to_vec(&elsewhere)?, 0o600)?;
        files::write_atomic(&self.kept(), &serde_json::to_vec_pretty(kept)?, 0o600)
    }

    /// Removes the folder, and what it has in a workspace or in the task logs.
    pub fn remove(&self) -> io::Result<()> {
        let text = files::read_text(&self.folder.join(ELSEWHERE), 64 * 1024)?;
        // One that is torn was never used: it is written before anything else.
        let elsewhere = text.and_then(|text| serde_json::from_str::<Elsewhere>(&text).ok()).unwrap_or_default();
        if let Some(logs) = &elsewhere.task_logs {
            files::remove_any(&self.hidden_in(logs))?;
        }
        if let Some(workspace) = &elsewhere.workspace {
            files::remove_any(&self.hidden_in(workspace))?;
            if elsewhere.made_workspace {
                // Only when it is empty.
                let _ = std::fs::remove_dir(workspace);
            }
        }
        files::remove_any(&self.folder)
    }
}

const ELSEWHERE: &str = "elsewhere.json";

/// What a restore may have outside the home.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    pub workspace: Option<PathBuf>,
    /// Whether the folder was made for it.
    pub made_workspace: bool,
    /// The task logs, real.
    #[serde(default)]
    pub task_logs: Option<PathBuf>,
}

/// Which of two states a file in the side folder belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Comes into force with the exchange.
    After,
    /// Was in force before it.
    Before,
}

impl When {
    pub fn name(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Before => "before",
        }
    }
}

/// What is remembered of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub exchanged_at: String,
    /// What came into force then.
    pub in_force: String,
    /// What is kept here.
    pub set_aside: String,
    /// Rows of what came into force, at that moment.
    pub rows: BTreeMap<String, i64>,
    pub workspace: Option<PathBuf>,
    /// Where the cluster is that could not be read when this was exchanged: what is kept here has no rows of it.
    #[serde(default)]
    pub unreadable: Option<PathBuf>,
}

impl Kept {
    pub fn now(in_force: String, set_aside: String, rows: BTreeMap<String, i64>, workspace: Option<PathBuf>) -> Self {
        Self { exchanged_at: clock::now_rfc3339(), in_force, set_aside, rows, workspace, unreadable: None }
    }
}

impl Side {
    /// Whether it has the workspace of before a restore that cannot be undone: nothing else has it.
    pub fn is_the_only(&self) -> bool {
        self.read_kept().is_some_and(|kept| kept.unreadable.is_some())
    }
}

/// Every folder of a restore that is there.
pub fn all(home: &Home) -> Vec<Side> {
    let entries = std::fs::read_dir(home.restore()).into_iter().flatten().flatten();
    entries.filter_map(|entry| RestoreId::parse(entry.file_name().to_str()?)).map(|id| Side::of(home, id)).collect()
}

/// The state that `restore --undo` brings back.
pub fn kept(home: &Home) -> Option<(Side, Kept)> {
    let mut found: Vec<(Side, Kept)> =
        all(home).into_iter().filter_map(|side| side.read_kept().map(|kept| (side, kept))).collect();
    found.sort_by(|one, other| one.1.exchanged_at.cmp(&other.1.exchanged_at));
    found.pop()
}
