//! Applies an uninstall plan. Each step is idempotent, and the information needed to resume is removed last.

use super::plan::{Identity, UninstallPlan};
use super::removal::{RemoveError, check_unchanged, entries, is_mount, remove, remove_all_but, remove_ours};
use super::scan;
use super::shell_files::{self, MARK};
use crate::setup::receipt::Receipt;
use crate::setup::service;
use leoflow_base::home::journal::{self, Entry, Journal, Operation};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, foreign};
use leoflow_base::sys::fs::disk::human_size;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{checkpoint, may_fail, random};
use leoflow_postgres::location::{self, Container};
use leoflow_python::linked_venv;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// State that another process needs to resume a purge.
#[derive(Serialize, Deserialize)]
struct Purge {
    /// Identity of the home when the purge began; a copy of the home has another one.
    home: Identity,
    workspace: Option<WorkspaceRemoval>,
    shell_files: Vec<PathBuf>,
    /// The interrupted operation whose journal the purge replaced; undoing the purge restores that journal.
    before: Option<Entry>,
}

#[derive(Serialize, Deserialize)]
struct WorkspaceRemoval {
    path: PathBuf,
    /// The purge first renames the workspace to this path. A folder that appears at `path` later belongs to the user.
    #[serde(rename = "aside")]
    quarantine: PathBuf,
    identity: Identity,
}

/// Steps of a purge. The first two only rename and can be undone.
const STEPS: [&str; 4] = ["begin", "set-aside", "workspace", "home"];
const QUARANTINE: usize = 1;
/// The first irreversible step.
const COMMIT: usize = 2;
const HOME: usize = 3;
/// Bytes of a part whose removal may take noticeable time.
const LARGE: u64 = 10_000_000;

/// Removes programs, downloads, process logs, the service and our lines in shell files; keeps the user's data. The
/// caller holds the home's lock.
pub fn remove_programs(home: &Home, plan: &UninstallPlan, reporter: &dyn Reporter) -> Result<(), RemoveError> {
    let shell_files = remove_service_and_shell_lines(home, &plan.shell_files, reporter);
    let venvs = remove_linked_venvs(home, reporter);
    // A file that keeps its line stays in the receipt for the next uninstall.
    Receipt::change(home, |receipt| receipt.shell_files = shell_files)?;
    for part in plan.remove.iter().filter(|part| !venvs.contains(&part.path)) {
        report_removal(reporter, &part.path, part.bytes.unwrap_or(0));
        remove_ours(&part.path, &plan.not_ours)?;
        checkpoint("uninstall.part");
    }
    Ok(())
}

/// Removes the service and our lines in shell files. Nothing depends on them, so a failure is a warning. Returns the
/// shell files that keep their line.
fn remove_service_and_shell_lines(home: &Home, paths: &[PathBuf], reporter: &dyn Reporter) -> Vec<PathBuf> {
    let warn = |text: String| reporter.report(Progress::Warning(text));
    if let Err(error) = service::remove(home) {
        warn(format!("cannot remove the service: {error}; remove its file by hand"));
    }
    let mut unwritable = Vec::new();
    for path in paths {
        if let Err(error) = shell_files::remove_lines(path) {
            warn(format!("cannot write {}: {error}; remove the line that ends with `{MARK}` by hand", path.display()));
            unwritable.push(path.clone());
        }
    }
    unwritable
}

/// Removes the virtual environments for editors, which are in the folders of projects; returns their paths. A failure is
/// a warning.
fn remove_linked_venvs(home: &Home, reporter: &dyn Reporter) -> Vec<PathBuf> {
    let venvs = linked_venv::all(home);
    for venv in &venvs {
        let removable = may_fail("uninstall.venv").map_err(|source| RemoveError::Io { path: venv.clone(), source });
        if let Err(error) = removable.and_then(|()| remove(venv)) {
            reporter.report(Progress::Warning(format!("{error}; remove it by hand")));
        }
    }
    venvs
}

/// Removes everything. The caller holds the home's lock, which is removed too. A failure before the first irreversible
/// step undoes the purge.
pub fn purge(home: &Home, plan: &UninstallPlan, reporter: &dyn Reporter) -> Result<(), RemoveError> {
    let purge = Purge {
        home: plan.identity,
        workspace: plan.workspace.as_ref().map(|tree| WorkspaceRemoval {
            path: tree.path.clone(),
            quarantine: quarantine_path(&tree.path),
            identity: tree.identity,
        }),
        shell_files: plan.shell_files.clone(),
        before: interrupted_before(home)?,
    };
    let text = serde_json::to_value(&purge).map_err(|error| RemoveError::Plan(error.to_string()))?;
    let mut journal = Journal::begin_with(home, Operation::Purge, STEPS.map(str::to_owned).to_vec(), text)?;
    if let Err(error) = reach_commit(home, &purge, &mut journal) {
        if journal.entry().at >= COMMIT && container(home)?.is_some_and(|(container, _)| !container.may_exist()) {
            // The container's data may be gone: the purge can only go forward.
            return Err(error);
        }
        match undo(home, &purge) {
            Ok(None) => {}
            Ok(Some(workspace)) => reporter.report(Progress::Warning(workspace_not_restored(&workspace))),
            Err(undo) => {
                // Lets the next command undo the purge.
                journal.set_at(QUARANTINE)?;
                return Err(undo);
            }
        }
        return Err(RemoveError::NothingRemoved(Box::new(error)));
    }
    finish(home, &purge, &mut journal, reporter)
}

/// Runs the reversible steps and the first irreversible one: the removal of our container with its volume. Fails before
/// that step if the container runtime does not respond.
fn reach_commit(home: &Home, purge: &Purge, journal: &mut Journal) -> Result<(), RemoveError> {
    check_unchanged(home.root())?;
    journal.set_at(QUARANTINE)?;
    checkpoint("purge.decided");
    if let Some(workspace) = &purge.workspace {
        quarantine(workspace)?;
        checkpoint("purge.set-aside");
    }
    may_fail("purge.no-return").map_err(|source| RemoveError::Io { path: home.root().to_owned(), source })?;
    if let Some((container, _)) = container(home)? {
        container.check_removable()?;
    }
    journal.set_at(COMMIT)?;
    remove_container(home)
}

/// The container of this home, and the home's id.
fn container(home: &Home) -> Result<Option<(Container, String)>, RemoveError> {
    Ok(location::recorded(home)?.and_then(|location| Some((location.container?, location.home_id))))
}

/// Removes the container of this home, if there is one.
fn remove_container(home: &Home) -> Result<(), RemoveError> {
    match container(home)? {
        Some((container, home_id)) => Ok(container.remove(&home_id)?),
        None => Ok(()),
    }
}

/// Puts the workspace and the replaced journal back. Returns the path in quarantine where the workspace stays if its
/// original path is occupied.
fn undo(home: &Home, purge: &Purge) -> Result<Option<PathBuf>, RemoveError> {
    let workspace = match &purge.workspace {
        Some(workspace) if identity(home.root()) == Some(purge.home) => restore_workspace(workspace)?,
        // This home is a copy, and the workspace belongs to the original.
        Some(workspace) if fs::symlink_metadata(&workspace.quarantine).is_ok() => Some(workspace.quarantine.clone()),
        _ => None,
    };
    match &purge.before {
        None => journal::clear(home)?,
        Some(before) => Journal::resume(home, before.clone()).set_at(before.at)?,
    }
    Ok(workspace)
}

/// Renames the workspace back. Returns its path in quarantine, where it stays if the original path is occupied.
fn restore_workspace(removal: &WorkspaceRemoval) -> Result<Option<PathBuf>, RemoveError> {
    if identity(&removal.quarantine) != Some(removal.identity) {
        return Ok(None);
    }
    let renamed =
        files::rename_to_new(&removal.quarantine, &removal.path).and_then(|()| files::sync_parent(&removal.path));
    match renamed {
        Ok(()) => Ok(None),
        // The original path is occupied.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Some(removal.quarantine.clone())),
        Err(source) => Err(RemoveError::Io { path: removal.quarantine.clone(), source }),
    }
}

/// Message about a workspace that an undone purge could not rename back.
pub(crate) fn workspace_not_restored(workspace: &Path) -> String {
    format!("the workspace is at {}, because its original path is occupied", workspace.display())
}

/// Reads the purge recorded in the journal.
fn read(entry: &Entry) -> Result<Purge, RemoveError> {
    serde_json::from_value(entry.plan.clone()).map_err(|error| RemoveError::Plan(error.to_string()))
}

/// The journal of an interrupted operation that this purge, or an interrupted one before it, replaces.
fn interrupted_before(home: &Home) -> Result<Option<Entry>, RemoveError> {
    Ok(match journal::unfinished(home)? {
        Some(entry) if entry.operation == Operation::Purge => read(&entry)?.before,
        before => before,
    })
}

/// Outcome of resuming an interrupted purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    Finished,
    /// Nothing was removed. The path is the workspace's if it could not be renamed back.
    Undone(Option<PathBuf>),
}

/// True once a purge may have removed something.
pub fn may_have_removed_something(entry: &Entry) -> bool {
    entry.at >= COMMIT
}

/// Finishes an interrupted purge, or undoes it if it had removed nothing.
pub fn resume_purge(home: &Home, entry: Entry, reporter: &dyn Reporter) -> Result<Resumed, RemoveError> {
    let purge = read(&entry)?;
    if !may_have_removed_something(&entry) {
        return Ok(Resumed::Undone(undo(home, &purge)?));
    }
    if identity(home.root()) != Some(purge.home) {
        return Err(RemoveError::Plan("it belongs to another folder, of which this is a copy".to_owned()));
    }
    remove_container(home)?;
    finish(home, &purge, &mut Journal::resume(home, entry), reporter)?;
    Ok(Resumed::Finished)
}

/// Runs the remaining irreversible steps.
fn finish(home: &Home, purge: &Purge, journal: &mut Journal, reporter: &dyn Reporter) -> Result<(), RemoveError> {
    if journal.entry().at < HOME {
        remove_service_and_shell_lines(home, &purge.shell_files, reporter);
        checkpoint("purge.shell-files");
        // Those outside of the workspace; the home has their list.
        remove_linked_venvs(home, reporter);
        if let Some(workspace) = &purge.workspace {
            report_removal(reporter, &workspace.path, scan::bytes(&workspace.quarantine));
            remove(&workspace.quarantine)?;
            checkpoint("purge.workspace");
        }
        journal.set_at(HOME)?;
    }
    check_unchanged(home.root())?;
    // The journal is removed last, before the folders that contain it.
    let not_ours = foreign(home);
    for entry in entries(home.root())? {
        if entry != home.run() {
            report_removal(reporter, &entry, scan::bytes(&entry));
            remove_ours(&entry, &not_ours)?;
        }
    }
    checkpoint("purge.home");
    remove_all_but(&home.run(), &home.journal())?;
    checkpoint("purge.run");
    for path in [home.journal(), home.run()] {
        remove(&path)?;
        checkpoint("purge.last");
    }
    if not_ours.is_empty() && !is_mount(home.root()) {
        remove(home.root())?;
        checkpoint("purge.last");
    }
    Ok(())
}

/// Reports the removal of a large part; others take no time.
fn report_removal(reporter: &dyn Reporter, path: &Path, bytes: u64) {
    if bytes >= LARGE {
        reporter.report(Progress::Started(format!("Removing {} ({})", path.display(), human_size(bytes))));
    }
}

/// Random hidden path next to `path`.
fn quarantine_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.leoflow-purge-{}", hex::encode(random::bytes::<4>())))
}

/// Renames the folder that the plan inspected; does nothing if another folder has replaced it.
fn quarantine(removal: &WorkspaceRemoval) -> Result<(), RemoveError> {
    // Inodes are reused after a folder is removed, so the identity is checked only before the rename.
    if fs::symlink_metadata(&removal.quarantine).is_ok() || identity(&removal.path) != Some(removal.identity) {
        return Ok(());
    }
    check_unchanged(&removal.path)?;
    let failed = |source| RemoveError::Io { path: removal.path.clone(), source };
    files::rename_durably(&removal.path, &removal.quarantine).map_err(failed)
}

/// Identity of a folder; `None` for anything else.
fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.is_dir())?;
    Some(Identity { inode: meta.ino() })
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
            let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
            home.create().unwrap();
            fs::create_dir(folder.path().join("workspace")).unwrap();
            fs::write(folder.path().join("workspace/dag.py"), "mine").unwrap();
            Self { folder, home }
        }

        fn workspace(&self) -> PathBuf {
            self.folder.path().join("workspace")
        }

        fn plan(&self, shell_files: Vec<PathBuf>) -> UninstallPlan {
            let tree =
                |path: &Path| Tree { path: path.to_owned(), identity: identity(path).unwrap(), ..Tree::default() };
            UninstallPlan {
                purge: true,
                remove: Vec::new(),
                keep: Vec::new(),
                home: self.home.root().to_owned(),
                identity: identity(self.home.root()).unwrap(),
                workspace: Some(tree(&self.workspace())),
                not_ours: Vec::new(),
                repositories: Vec::new(),
                must_type_workspace_path: false,
                shell_files,
                service: None,
            }
        }
    }

    #[test]
    fn an_unwritable_shell_file_is_a_warning() {
        let fixture = Fixture::new();
        let (blocked, good) = (fixture.folder.path().join(".bashrc"), fixture.folder.path().join(".profile"));
        fs::create_dir(&blocked).unwrap();
        fs::write(&good, format!("mine\nexport PATH=x  {MARK}\n")).unwrap();
        let reports = Mutex::new(Vec::new());
        let reporter = |progress: Progress| reports.lock().unwrap().push(progress);
        purge(&fixture.home, &fixture.plan(vec![blocked, good.clone()]), &reporter).unwrap();
        assert!(!fixture.home.root().exists() && !fixture.workspace().exists());
        assert_eq!(fs::read_to_string(good).unwrap(), "mine\n", "the next file is changed");
        let reports = reports.into_inner().unwrap();
        assert!(
            matches!(&reports[..], [Progress::Warning(text)] if text.contains(".bashrc") && text.contains(MARK)),
            "{reports:?}"
        );
    }

    #[test]
    fn a_purge_reports_the_large_folders_it_removes() {
        let fixture = Fixture::new();
        let tools = fixture.home.tools();
        fs::create_dir_all(&tools).unwrap();
        fs::write(tools.join("cache"), vec![1; 11_000_000]).unwrap();
        let reports = Mutex::new(Vec::new());
        let reporter = |progress: Progress| reports.lock().unwrap().push(progress);
        purge(&fixture.home, &fixture.plan(Vec::new()), &reporter).unwrap();
        let reports = reports.into_inner().unwrap();
        let expected = format!("Removing {} (11 MB)", tools.display());
        assert!(matches!(&reports[..], [Progress::Started(text)] if *text == expected), "{reports:?}");
    }

    #[test]
    fn an_undone_purge_keeps_the_journal_it_replaced() {
        for operation in [Operation::Upgrade, Operation::Restore] {
            let fixture = Fixture::new();
            let home = &fixture.home;
            let steps = vec!["fetch".to_owned(), "let-go".to_owned()];
            let mut interrupted = Journal::begin_with(home, operation, steps, serde_json::json!({"plan": 1})).unwrap();
            interrupted.set_at(1).unwrap();
            let journal_text = || fs::read_to_string(home.journal()).unwrap();
            let unchanged = journal_text();
            let purge = Purge {
                home: identity(home.root()).unwrap(),
                workspace: None,
                shell_files: Vec::new(),
                before: interrupted_before(home).unwrap(),
            };
            let text = serde_json::to_value(&purge).unwrap();
            Journal::begin_with(home, Operation::Purge, STEPS.map(str::to_owned).to_vec(), text).unwrap();
            let entry = journal::unfinished(home).unwrap().unwrap();
            assert_eq!(resume_purge(home, entry, &|_: Progress| {}).unwrap(), Resumed::Undone(None));
            assert_eq!(journal_text(), unchanged, "{operation}");
        }
    }

    #[test]
    fn undoes_a_purge_that_only_renamed() {
        let fixture = Fixture::new();
        let plan = fixture.plan(Vec::new());
        let removal = WorkspaceRemoval {
            path: fixture.workspace(),
            quarantine: quarantine_path(&fixture.workspace()),
            identity: plan.workspace.as_ref().unwrap().identity,
        };
        let purge = Purge { home: plan.identity, workspace: Some(removal), shell_files: Vec::new(), before: None };
        let steps = STEPS.map(str::to_owned).to_vec();
        let text = serde_json::to_value(&purge).unwrap();
        let mut journal = Journal::begin_with(&fixture.home, Operation::Purge, steps, text).unwrap();
        journal.set_at(QUARANTINE).unwrap();
        quarantine(purge.workspace.as_ref().unwrap()).unwrap();
        assert!(!fixture.workspace().exists());
        let entry = journal::unfinished(&fixture.home).unwrap().unwrap();
        let resumed = resume_purge(&fixture.home, entry, &|_: Progress| {}).unwrap();
        assert_eq!(resumed, Resumed::Undone(None));
        assert_eq!(fs::read_to_string(fixture.workspace().join("dag.py")).unwrap(), "mine");
        assert!(!fixture.home.journal().exists() && fixture.home.run().exists());
    }
}
