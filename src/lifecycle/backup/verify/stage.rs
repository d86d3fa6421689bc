//! Unpacks a backup into Leoflow's folders. `Manifest::parse` has checked every path. Links are created last, so that
//! no file is written through a link.

use crate::backup::format::archive_read::Sink;
use crate::backup::format::manifest::{Content, DUMP, Entry, RECEIPT, TASK_LOGS, WORKSPACE};
use leoflow_base::sys::fs::sparse;
use std::fs::{self, DirBuilder, OpenOptions};
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
            Content::File { executable, private, stored, .. } => {
                let follows_umask = entry.path.starts_with(WORKSPACE) && !private;
                let mode = match (follows_umask, *executable) {
                    (true, true) => 0o777,
                    (true, false) => 0o666,
                    (false, true) => 0o700,
                    (false, false) => 0o600,
                };
                let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target_path)?;
                match stored {
                    // A hostile backup must not write more than the check of the free space allowed.
                    Some(_) => sparse::write(content, &file, entry.stored())?,
                    None => io::copy(content, &mut file).map(drop)?,
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::create::collect::Collected;
    use crate::backup::create::own_backups::OwnBackups;
    use crate::backup::create::spool::{AtRest, Spool};
    use crate::backup::format::archive::{ArchiveWriter, Compression};
    use crate::backup::format::archive_read::{ArchiveError, ArchiveReader};
    use crate::backup::format::manifest::tests::manifest;
    use crate::backup::format::manifest::{CONFIG, Manifest};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1024 * 1024;

    /// Backs up a workspace. `change` can falsify the manifest.
    fn archive(workspace: &Path, at_rest: AtRest, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let mut collected = Collected::new(Spool::new(folder.path(), 0, at_rest).unwrap());
        collected.add_bytes(CONFIG, b"", 0).unwrap();
        collected.add_bytes(DUMP, b"dump", 0).unwrap();
        collected.add_workspace(workspace, &[], &OwnBackups::default()).unwrap();
        let mut manifest = manifest(vec![]);
        manifest.entries = collected.items.iter().map(|item| item.entry.clone()).collect();
        change(&mut manifest);
        let text = serde_json::to_vec(&manifest).unwrap();
        let mut archive = ArchiveWriter::begin(Vec::new(), Compression::Zstd, &text, 0).unwrap();
        for item in &collected.items {
            match &item.piece {
                Some(piece) => archive.add(&item.entry, 0, collected.spool.read(piece)).unwrap(),
                None => archive.add(&item.entry, 0, io::empty()).unwrap(),
            }
        }
        archive.finish().unwrap()
    }

    fn unpack(archive: &[u8], own: &Path) -> Result<Manifest, ArchiveError> {
        let own = own.to_owned();
        let (task_logs, workspace) = (own.join("task-logs"), own.join("workspace"));
        let mut stage = Stage::new(Targets { own, task_logs, workspace });
        ArchiveReader::new(archive).unwrap().read(&mut stage)
    }

    #[test]
    fn holes_stay_holes_and_written_zeros_stay_written() {
        let data = [b'x'; 10_000];
        let workspace = tempfile::tempdir().unwrap();
        let sparse_files: [(&str, &[u64]); 4] = [
            ("empty", &[]),
            ("data-in-between", &[3 * MIB + 5]),
            ("data-at-both-ends", &[0, 16 * MIB - 10_000]),
            ("data-at-the-start", &[0]),
        ];
        for (name, offsets) in sparse_files {
            let file = File::create(workspace.path().join(name)).unwrap();
            file.set_len(16 * MIB).unwrap();
            offsets.iter().for_each(|offset| file.write_all_at(&data, *offset).unwrap());
        }
        fs::write(workspace.path().join("no-bytes"), "").unwrap();
        fs::write(workspace.path().join("zeros"), vec![0_u8; 2 * MIB as usize]).unwrap();
        File::open(workspace.path().join("zeros")).unwrap().sync_all().unwrap();
        for at_rest in [AtRest::Plain, AtRest::Sealed] {
            let target = tempfile::tempdir().unwrap();
            let manifest = unpack(&archive(workspace.path(), at_rest, |_| {}), target.path()).unwrap();
            let is_sparse = |name: &str| {
                let paths = [workspace.path().join(name), target.path().join("workspace").join(name)];
                assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap(), "{name}");
                paths.map(|path| {
                    let file = File::open(path).unwrap();
                    // Some file systems allocate late.
                    file.sync_all().unwrap();
                    sparse::is_sparse(&file.metadata().unwrap())
                })
            };
            assert_eq!(is_sparse("no-bytes"), [false, false]);
            let [zeros_before, zeros_after] = is_sparse("zeros");
            if !is_sparse("empty")[0] || zeros_before {
                eprintln!("skipped: this file system has no holes, or compresses zeros");
                return;
            }
            assert!(!zeros_after, "written zeros became a hole");
            for (name, _) in sparse_files {
                assert_eq!(is_sparse(name), [true, true], "{name}");
                let entry = manifest.entries.iter().find(|entry| entry.path.ends_with(name)).unwrap();
                assert!(entry.size() == 16 * MIB && entry.stored() < MIB, "{entry:?}");
            }
        }
    }

    #[test]
    fn a_backup_with_more_data_than_it_says_is_stopped() {
        let workspace = tempfile::tempdir().unwrap();
        fs::write(workspace.path().join("file"), vec![b'x'; MIB as usize]).unwrap();
        let hostile = archive(workspace.path(), AtRest::Plain, |manifest| {
            let Content::File { stored, .. } = &mut manifest.entries.last_mut().unwrap().content else { panic!() };
            *stored = Some(4096);
        });
        let target = tempfile::tempdir().unwrap();
        let refused = unpack(&hostile, target.path()).unwrap_err();
        assert!(matches!(&refused, ArchiveError::Content { path, .. } if path == "workspace/file"), "{refused}");
        assert!(fs::metadata(target.path().join("workspace/file")).unwrap().len() <= 4096);
    }
}
