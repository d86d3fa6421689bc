//! Unpacking a backup into a folder of our own. Every path has been checked by the manifest; links
//! are made last, so that nothing can be written through one.

use super::archive_read::Sink;
use super::manifest::{Content, DUMP, Entry, RECEIPT, TASK_LOGS, WORKSPACE};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where the parts of a backup go.
#[derive(Debug, Clone)]
pub struct Places {
    /// `config.yaml` and the dump, files of ours.
    pub own: PathBuf,
    pub task_logs: PathBuf,
    pub workspace: PathBuf,
}

pub struct Stage {
    places: Places,
    links: Vec<(PathBuf, String)>,
}

impl Stage {
    /// The folders that `places` names must not be there yet; those above them must.
    pub fn new(places: Places) -> Self {
        Self { places, links: Vec::new() }
    }

    /// Makes the links.
    pub fn finish(self) -> io::Result<()> {
        self.links.iter().try_for_each(|(path, target)| symlink(target, path))
    }

    fn place(&self, path: &str) -> PathBuf {
        let below = |top: &str| path.strip_prefix(top).and_then(|rest| rest.strip_prefix('/').or(Some(rest)));
        match path.split('/').next() {
            Some(TASK_LOGS) => join(&self.places.task_logs, below(TASK_LOGS)),
            Some(WORKSPACE) => join(&self.places.workspace, below(WORKSPACE)),
            _ => self.places.own.join(path),
        }
    }
}

fn join(root: &Path, below: Option<&str>) -> PathBuf {
    match below {
        None | Some("") => root.to_owned(),
        Some(below) => root.join(below),
    }
}

impl Sink for Stage {
    fn entry(&mut self, entry: &Entry, modified: u64, content: &mut dyn Read) -> io::Result<()> {
        let place = self.place(&entry.path);
        match &entry.content {
            // A workspace's files and folders are as the user's umask has them, but for those that were
            // private; ours are.
            Content::Directory { private: false } if entry.path.starts_with(WORKSPACE) => fs::create_dir(&place),
            Content::Directory { .. } => DirBuilder::new().mode(0o700).create(&place),
            Content::Symlink { target } => {
                self.links.push((place, target.clone()));
                Ok(())
            }
            // This machine has a receipt of its own.
            Content::File { .. } if entry.path == RECEIPT => Ok(()),
            Content::File { executable, private, .. } => {
                let open = entry.path.starts_with(WORKSPACE) && !private;
                let mode = match (open, *executable) {
                    (true, true) => 0o777,
                    (true, false) => 0o666,
                    (false, true) => 0o700,
                    (false, false) => 0o600,
                };
                let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&place)?;
                copy(content, &mut file)?;
                let since = Duration::from_secs(modified);
                match SystemTime::UNIX_EPOCH.checked_add(since) {
                    // A file system that cannot hold the time keeps today's.
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
