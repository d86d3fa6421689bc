//! Following the plan. Each step can be done again, and what says how to go on goes last.

use super::plan::{Identity, Plan};
use super::shell_files::{self, MARK};
use crate::home::journal::{self, Entry, Journal, JournalError, Operation};
use crate::home::progress::{Progress, Reporter};
use crate::home::{Home, foreign};
use crate::postgres::container::{Container, ContainerError};
use crate::postgres::place::{self, PlaceError};
use crate::setup::receipt::{Receipt, ReceiptError};
use crate::setup::service;
use crate::sys::{checkpoint, files, may_fail, mounts, random};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("cannot remove {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} has become a link or a mount point, and is left alone")]
    Changed(PathBuf),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("the plan in the journal cannot be read: {0}")]
    Plan(String),
    /// The purge failed before its first irreversible step, and everything is as it was.
    #[error("{0}; nothing was removed")]
    NothingRemoved(Box<RemoveError>),
}

/// What a purge needs when another process goes on with it.
#[derive(Serialize, Deserialize)]
struct Purge {
    /// The home that the journal is of: a copy of it elsewhere is not meant.
    home: Identity,
    workspace: Option<Doomed>,
    shell_files: Vec<PathBuf>,
    /// What had been interrupted before, and goes on when the purge is taken back.
    #[serde(default)]
    before: Option<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Doomed {
    path: PathBuf,
    /// Where it is renamed to first: what comes to its place afterwards is the user's.
    aside: PathBuf,
    identity: Identity,
}

/// Steps of a purge. Up to the second, which only renames, it can be taken back.
const STEPS: [&str; 4] = ["begin", "set-aside", "workspace", "home"];
const SET_ASIDE: usize = 1;
/// The first step that cannot be taken back.
const NO_RETURN: usize = 2;
const HOME: usize = 3;

/// Removes what can be had again. The caller holds the home's lock.
pub fn remove_programs(home: &Home, plan: &Plan, reporter: &dyn Reporter) -> Result<(), RemoveError> {
    let shell_files = remove_conveniences(home, &plan.shell_files, reporter);
    if let Some(receipt) = Receipt::load(home)? {
        // A file that keeps its line stays named, for the next uninstall.
        Receipt { shell_files, ..receipt }.write(home)?;
    }
    for part in &plan.remove {
        remove_ours(&part.path, &plan.not_ours)?;
        checkpoint("uninstall.part");
    }
    Ok(())
}

/// Removes the service and our lines in shell files. Nothing depends on them: what cannot be removed is a warning. Returns the
/// shell files that keep their line.
fn remove_conveniences(home: &Home, paths: &[PathBuf], reporter: &dyn Reporter) -> Vec<PathBuf> {
    let warn = |text: String| reporter.report(Progress::Warning(text));
    if let Err(error) = service::remove(home) {
        warn(format!("the service is not removed: {error}; remove its file by hand"));
    }
    let mut left = Vec::new();
    for path in paths {
        if let Err(error) = shell_files::remove_lines(path) {
            warn(format!("cannot write {}: {error}; remove the line that ends in `{MARK}` by hand", path.display()));
            left.push(path.clone());
        }
    }
    left
}

/// Removes a part of the home, but for what in it is somebody else's.
fn remove_ours(path: &Path, not_ours: &[PathBuf]) -> Result<(), RemoveError> {
    if not_ours.iter().any(|theirs| theirs == path) {
        return Ok(());
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    if is_link || !not_ours.iter().any(|theirs| theirs.starts_with(path)) {
        return remove(path);
    }
    let failed = |source| RemoveError::Io { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(failed)? {
        remove_ours(&entry.map_err(failed)?.path(), not_ours)?;
    }
    Ok(())
}

/// Removes everything. The caller holds the home's lock, which goes with it. A failure before the first irreversible step is taken
/// back.
pub fn purge(home: &Home, plan: &Plan, reporter: &dyn Reporter) -> Result<(), RemoveError> {
    let purge = Purge {
        home: plan.identity,
        workspace: plan.workspace.as_ref().map(|tree| Doomed {
            path: tree.path.clone(),
            aside: aside(&tree.path),
            identity: tree.identity,
        }),
        shell_files: plan.shell_files.clone(),
        before: interrupted_before(home)?,
    };
    let text = serde_json::to_value(&purge).map_err(|error| RemoveError::Plan(error.to_string()))?;
    let mut journal = Journal::begin_with(home, Operation::Purge, STEPS.map(str::to_owned).to_vec(), text)?;
    if let Err(error) = reach_no_return(home, &purge, &mut journal) {
        if journal.entry().at >= NO_RETURN && container(home)?.is_some_and(|(container, _)| !container.may_exist()) {
            // Its data may be gone: only the purge itself goes on.
            return Err(error);
        }
        match take_back(home, &purge) {
            Ok(None) => {}
            Ok(Some(left)) => reporter.report(Progress::Warning(workspace_left(&left))),
            Err(undo) => {
                // The next command takes it back.
                journal.set_at(SET_ASIDE)?;
                return Err(undo);
            }
        }
        return Err(RemoveError::NothingRemoved(Box::new(error)));
    }
    finish(home, &purge, &mut journal, reporter)
}

/// The steps that can be taken back, and the first that cannot: removing a container of ours with its volume. One whose runtime does
/// not answer loses nothing.
fn reach_no_return(home: &Home, purge: &Purge, journal: &mut Journal) -> Result<(), RemoveError> {
    unchanged(home.root())?;
    journal.set_at(SET_ASIDE)?;
    checkpoint("purge.decided");
    if let Some(workspace) = &purge.workspace {
        set_aside(workspace)?;
        checkpoint("purge.set-aside");
    }
    may_fail("purge.no-return").map_err(|source| RemoveError::Io { path: home.root().to_owned(), source })?;
    if let Some((container, _)) = container(home)? {
        container.check_removable()?;
    }
    journal.set_at(NO_RETURN)?;
    remove_container(home)
}

/// The container of this home, with the home's id.
fn container(home: &Home) -> Result<Option<(Container, String)>, RemoveError> {
    Ok(place::recorded(home)?.and_then(|place| Some((place.container?, place.home_id))))
}

fn remove_container(home: &Home) -> Result<(), RemoveError> {
    match container(home)? {
        Some((container, home_id)) => Ok(container.remove(&home_id)?),
        None => Ok(()),
    }
}

/// Puts the workspace back and forgets the purge. Returns where the workspace is if it cannot go back to its place.
fn take_back(home: &Home, purge: &Purge) -> Result<Option<PathBuf>, RemoveError> {
    let left = match &purge.workspace {
        Some(workspace) if identity(home.root()) == Some(purge.home) => put_back(workspace)?,
        // In a copy of the home: the workspace is the first one's.
        Some(workspace) if fs::symlink_metadata(&workspace.aside).is_ok() => Some(workspace.aside.clone()),
        _ => None,
    };
    match &purge.before {
        None => journal::clear(home)?,
        Some(before) => Journal::resume(home, before.clone()).set_at(before.at)?,
    }
    Ok(left)
}

fn put_back(doomed: &Doomed) -> Result<Option<PathBuf>, RemoveError> {
    if identity(&doomed.aside) != Some(doomed.identity) {
        return Ok(None);
    }
    let renamed = files::rename_to_new(&doomed.aside, &doomed.path).and_then(|()| files::sync_parent(&doomed.path));
    match renamed {
        Ok(()) => Ok(None),
        // Something else has come to its place.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Some(doomed.aside.clone())),
        Err(source) => Err(RemoveError::Io { path: doomed.aside.clone(), source }),
    }
}

/// For people: the workspace of a purge that was taken back is not in its place.
pub fn workspace_left(aside: &Path) -> String {
    format!("the workspace is at {}: something else is in its place", aside.display())
}

fn read(entry: &Entry) -> Result<Purge, RemoveError> {
    serde_json::from_value(entry.plan.clone()).map_err(|error| RemoveError::Plan(error.to_string()))
}

/// An exchange that is half done, whose journal the purge's own takes the place of.
fn interrupted_before(home: &Home) -> Result<Option<Entry>, RemoveError> {
    Ok(match journal::unfinished(home)? {
        Some(entry) if matches!(entry.operation, Operation::Restore | Operation::RestoreUndo) => Some(entry),
        Some(entry) if entry.operation == Operation::Purge => read(&entry)?.before,
        _ => None,
    })
}

/// The result of taking up an interrupted purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    Finished,
    /// It had removed nothing, and is forgotten; with the place of a workspace that could not be put back.
    TakenBack(Option<PathBuf>),
}

/// True once a purge may have removed something.
pub fn has_begun(entry: &Entry) -> bool {
    entry.at >= NO_RETURN
}

/// Finishes an interrupted purge, or takes it back if it had removed nothing.
pub fn resume_purge(home: &Home, entry: Entry, reporter: &dyn Reporter) -> Result<Resumed, RemoveError> {
    let purge = read(&entry)?;
    if !has_begun(&entry) {
        return Ok(Resumed::TakenBack(take_back(home, &purge)?));
    }
    if identity(home.root()) != Some(purge.home) {
        return Err(RemoveError::Plan("it is of another folder, of which this is a copy".to_owned()));
    }
    remove_container(home)?;
    finish(home, &purge, &mut Journal::resume(home, entry), reporter)?;
    Ok(Resumed::Finished)
}

fn finish(home: &Home, purge: &Purge, journal: &mut Journal, reporter: &dyn Reporter) -> Result<(), RemoveError> {
    if journal.entry().at < HOME {
        remove_conveniences(home, &purge.shell_files, reporter);
        checkpoint("purge.shell-files");
        if let Some(workspace) = &purge.workspace {
            remove(&workspace.aside)?;
            checkpoint("purge.workspace");
        }
        journal.set_at(HOME)?;
    }
    unchanged(home.root())?;
    // The journal is the last but for the folders that hold it.
    let not_ours = foreign(home);
    for entry in entries(home.root())? {
        if entry != home.run() {
            remove_ours(&entry, &not_ours)?;
        }
    }
    checkpoint("purge.home");
    remove_all_but(&home.run(), &home.journal())?;
    checkpoint("purge.run");
    for last in [home.journal(), home.run()] {
        remove(&last)?;
        checkpoint("purge.last");
    }
    if not_ours.is_empty() {
        remove(home.root())?;
        checkpoint("purge.last");
    }
    Ok(())
}

fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.leoflow-purge-{}", hex::encode(random::bytes::<4>())))
}

/// Renames the very folder that was looked at; one that has come to its place is left alone.
fn set_aside(doomed: &Doomed) -> Result<(), RemoveError> {
    // An inode is used again once its folder is gone; so it is looked at only before the rename.
    if fs::symlink_metadata(&doomed.aside).is_ok() || identity(&doomed.path) != Some(doomed.identity) {
        return Ok(());
    }
    unchanged(&doomed.path)?;
    let failed = |source| RemoveError::Io { path: doomed.path.clone(), source };
    files::rename_durably(&doomed.path, &doomed.aside).map_err(failed)
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.is_dir())?;
    Some(Identity { inode: meta.ino() })
}

/// Between the plan and now, or between two runs, somebody may have put something else there.
fn unchanged(path: &Path) -> Result<(), RemoveError> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    // Where that cannot be told, nothing is removed.
    let has_mounts = mounts::at_or_below(path).map_or(true, |mounts| !mounts.is_empty());
    if is_link || has_mounts { Err(RemoveError::Changed(path.to_owned())) } else { Ok(()) }
}

fn remove_all_but(folder: &Path, kept: &Path) -> Result<(), RemoveError> {
    entries(folder)?.iter().filter(|path| *path != kept).try_for_each(|path| remove(path))
}

/// None in a folder that is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, RemoveError> {
    let failed = |source| RemoveError::Io { path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// Removes a tree; links in it are removed, not followed. Folders that their owner may not write in, as
/// some package managers leave them, are opened first.
fn remove(path: &Path) -> Result<(), RemoveError> {
    let removed = match files::remove_any(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            files::make_folders_writable(path).and_then(|()| files::remove_any(path))
        }
        other => other,
    };
    removed.map_err(|source| RemoveError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::super::plan::Tree;
    use super::*;
    use std::sync::Mutex;

    struct Fixture {
        folder: tempfile::TempDir,
        home: Home,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = crate::home::resolve(Some(&folder.path().join("home"))).unwrap();
            home.create().unwrap();
            fs::create_dir(folder.path().join("workspace")).unwrap();
            fs::write(folder.path().join("workspace/dag.py"), "mine").unwrap();
            Self { folder, home }
        }

        fn workspace(&self) -> PathBuf {
            self.folder.path().join("workspace")
        }

        fn plan(&self, shell_files: Vec<PathBuf>) -> Plan {
            let tree =
                |path: &Path| Tree { path: path.to_owned(), identity: identity(path).unwrap(), ..Tree::default() };
            Plan {
                purge: true,
                remove: Vec::new(),
                keep: Vec::new(),
                home: self.home.root().to_owned(),
                identity: identity(self.home.root()).unwrap(),
                workspace: Some(tree(&self.workspace())),
                not_ours: Vec::new(),
                repositories: Vec::new(),
                type_workspace: false,
                shell_files,
                service: None,
            }
        }
    }

    #[test]
    fn an_unwritable_shell_file_is_a_warning_of_a_purge() {
        let fixture = Fixture::new();
        let (blocked, good) = (fixture.folder.path().join(".bashrc"), fixture.folder.path().join(".profile"));
        fs::create_dir(&blocked).unwrap();
        fs::write(&good, format!("mine\nexport PATH=x  {MARK}\n")).unwrap();
        let said = Mutex::new(Vec::new());
        let reporter = |progress: Progress| said.lock().unwrap().push(progress);
        purge(&fixture.home, &fixture.plan(vec![blocked, good.clone()]), &reporter).unwrap();
        assert!(!fixture.home.root().exists() && !fixture.workspace().exists());
        assert_eq!(fs::read_to_string(good).unwrap(), "mine\n", "the next file is done");
        let said = said.into_inner().unwrap();
        assert!(
            matches!(&said[..], [Progress::Warning(text)] if text.contains(".bashrc") && text.contains(MARK)),
            "{said:?}"
        );
    }

    #[test]
    fn a_purge_that_only_renamed_is_taken_back() {
        let fixture = Fixture::new();
        let plan = fixture.plan(Vec::new());
        let doomed = Doomed {
            path: fixture.workspace(),
            aside: aside(&fixture.workspace()),
            identity: plan.workspace.as_ref().unwrap().identity,
        };
        let purge = Purge { home: plan.identity, workspace: Some(doomed), shell_files: Vec::new(), before: None };
        let steps = STEPS.map(str::to_owned).to_vec();
        let text = serde_json::to_value(&purge).unwrap();
        let mut journal = Journal::begin_with(&fixture.home, Operation::Purge, steps, text).unwrap();
        journal.set_at(SET_ASIDE).unwrap();
        set_aside(purge.workspace.as_ref().unwrap()).unwrap();
        assert!(!fixture.workspace().exists());
        let entry = journal::unfinished(&fixture.home).unwrap().unwrap();
        let resumed = resume_purge(&fixture.home, entry, &|_: Progress| {}).unwrap();
        assert_eq!(resumed, Resumed::TakenBack(None));
        assert_eq!(fs::read_to_string(fixture.workspace().join("dag.py")).unwrap(), "mine");
        assert!(!fixture.home.journal().exists() && fixture.home.run().exists());
    }
}
