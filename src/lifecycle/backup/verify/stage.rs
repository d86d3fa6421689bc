//! Unpacks a backup into Leoflow's folders. `Manifest::parse` has checked every path. Links are created last, so that
//! no file is written through a link.

use crate::backup::format::archive_read::Sink;
use crate::backup::format::manifest::{Content, DUMP, Entry, RECEIPT, TASK_LOGS, WORKSPACE};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Destinations of the parts of a backup.
#[derive(Debug, Clone)]
pub struct Targets {
    /// `config.yaml` and the dump.
    pub own: PathBuf,
    pub task_logs: PathBuf,
    pub workspace: PathBuf,
}

pub struct Stage {
    targets: Targets,
    links: Vec<(PathBuf, String)>,
}

impl Stage {
    /// The target folders of the task logs and the workspace must not exist, but their parents must.
    pub fn new(targets: Targets) -> Self {
        Self { targets, links: Vec::new() }
    }

    /// Creates the links.
    pub fn finish(self) -> io::Result<()> {
        self.links.iter().try_for_each(|(path, target)| symlink(target, path))
    }

    fn target_path(&self, path: &str) -> PathBuf {
        let relative_path = |top: &str| path.strip_prefix(top).and_then(|rest| rest.strip_prefix('/').or(Some(rest)));
        match path.split('/').next() {
            Some(TASK_LOGS) => join(&self.targets.task_logs, relative_path(TASK_LOGS)),
            Some(WORKSPACE) => join(&self.targets.workspace, relative_path(WORKSPACE)),
            _ => self.targets.own.join(path),
        }
    }
}

fn join(root: &Path, relative_path: Option<&str>) -> PathBuf {
    match relative_path {
        None | Some("") => root.to_owned(),
        Some(relative_path) => root.join(relative_path),
    }
}

impl Sink for Stage {
    fn entry(&mut self, entry: &Entry, modified: u64, content: &mut dyn Read) -> io::Result<()> {
        let target_path = self.target_path(&entry.path);
        match &entry.content {
            // Only the umask limits the modes in a workspace, except for private entries. All other entries are
            // private.
            Content::Directory { private: false } if entry.path.starts_with(WORKSPACE) => fs::create_dir(&target_path),
            Content::Directory { .. } => DirBuilder::new().mode(0o700).create(&target_path),
            Content::Symlink { target } => {
                self.links.push((target_path, target.clone()));
                Ok(())
            }
            // This machine keeps its own receipt.
            Content::File { .. } if entry.path == RECEIPT => Ok(()),
            Content::File { executable, private, .. } => {
                let follows_umask = entry.path.starts_with(WORKSPACE) && !private;
                let mode = match (follows_umask, *executable) {
                    (true, true) => 0o777,
                    (true, false) => 0o666,
                    (false, true) => 0o700,
                    (false, false) => 0o600,
                };
                let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target_path)?;
                copy(content, &mut file)?;
                let modified_after_epoch = Duration::from_secs(modified);
                match SystemTime::UNIX_EPOCH.checked_add(modified_after_epoch) {
                    // An error is ignored: some file systems cannot store the time.
                    Some(time) if entry.path != DUMP => file.set_modified(time).or(Ok(())),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn copy(content: &mut dyn Read, file: &mut File) -> io::Result<()> {
    io::copy(content, file).map(drop)
}
