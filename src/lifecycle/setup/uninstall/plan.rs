//! Plans an uninstall, or refuses it. Pure: `--dry-run` and the prompt show the plan.

use super::repositories::Repository;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Options that the user requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    pub purge: bool,
    pub keep_workspace: bool,
    /// Also remove a workspace that existed before Leoflow.
    pub include_workspace: bool,
    /// Also remove repositories with uncommitted or unpushed work.
    pub include_repositories: bool,
    /// Skip the prompt.
    pub yes: bool,
}

/// A folder that may be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    pub path: PathBuf,
    /// Allocated bytes.
    pub bytes: u64,
    pub is_link: bool,
    /// Mount points at or below the folder.
    pub mounts: Vec<PathBuf>,
    /// The first few files of other users.
    pub owned_by_others: Vec<PathBuf>,
    /// The first few unreadable folders.
    pub unreadable: Vec<PathBuf>,
    /// True when the user may not write to the parent folder, so the folder cannot be removed.
    pub parent_is_read_only: bool,
    /// Shows whether another folder has replaced this one since the plan was made.
    pub identity: Identity,
    /// Repositories with uncommitted or unpushed work, or in an unknown state.
    pub repositories: Vec<Repository>,
}

/// Inode number of a folder. Without the device number, which may change after a reboot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub inode: u64,
}

/// State of the home.
#[derive(Debug, Clone)]
pub struct UninstallFacts {
    pub home: Tree,
    /// Home path in the receipt.
    pub receipt_home: Option<PathBuf>,
    /// Canonical home directories of the user, by environment and by passwd.
    pub user_homes: Vec<PathBuf>,
    /// The workspace in the receipt, if it exists.
    pub workspace: Option<Tree>,
    pub made_workspace: bool,
    /// The workspace in config.yaml, if it differs from the receipt's.
    pub other_workspace: Option<PathBuf>,
    /// The workspace in use, if it exists: the one in config.yaml, else the receipt's. `None` if a purge may remove it.
    pub kept_workspace: Option<Part>,
    pub parts: Vec<Part>,
    /// Files in the home that are not Leoflow's.
    pub not_ours: Vec<PathBuf>,
    pub shell_files: Vec<PathBuf>,
    /// File of the service, a systemd unit.
    pub service: Option<PathBuf>,
}

/// A part of the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub what: &'static str,
    pub path: PathBuf,
    /// Allocated bytes; `None` if unknown, because the folder is too wide to be read.
    pub bytes: Option<u64>,
    /// True when an uninstall without `--purge` keeps it.
    pub is_data: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UninstallPlan {
    pub purge: bool,
    pub remove: Vec<Part>,
    pub keep: Vec<Part>,
    pub home: PathBuf,
    /// Identity of the home's folder.
    pub identity: Identity,
    /// The workspace to remove; `None` keeps it.
    pub workspace: Option<Tree>,
    /// Paths that stay because setup did not create them: files in the home, and a workspace named only in config.yaml.
    pub not_ours: Vec<PathBuf>,
    /// Repositories to remove although they have uncommitted or unpushed work.
    pub repositories: Vec<Repository>,
    /// True when the user must confirm by typing the workspace's path.
    pub must_type_workspace_path: bool,
    pub shell_files: Vec<PathBuf>,
    pub service: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UninstallRefusal {
    #[error("no sign that Leoflow was set up in {0} (setup.json is missing)")]
    NoReceipt(PathBuf),
    #[error("setup.json in {home} belongs to another home, {other}")]
    OtherHome { home: PathBuf, other: PathBuf },
    #[error("{0} is a link; its target is not removed through it")]
    Link(PathBuf),
    #[error("{path} is or contains {what}")]
    TooWide { path: PathBuf, what: &'static str },
    #[error("{path} is or contains a mount point: {mount}")]
    Mount { path: PathBuf, mount: PathBuf },
    #[error("{path} contains a file of another user: {file}")]
    OtherOwner { path: PathBuf, file: PathBuf },
    #[error("{path} contains an unreadable folder: {unreadable}")]
    Unreadable { path: PathBuf, unreadable: PathBuf },
    #[error("cannot remove {0}: its parent folder is not writable")]
    ReadOnlyParent(PathBuf),
    #[error("the workspace {0} existed before Leoflow")]
    WorkspaceNotMade(PathBuf),
    #[error("{} work that exists nowhere else", containing(.0))]
    Repositories(Vec<Repository>),
}

fn containing(repositories: &[Repository]) -> String {
    match repositories.len() {
        1 => "1 repository contains".to_owned(),
        count => format!("{count} repositories contain"),
    }
}

impl UninstallPlan {
    /// True when another plan removes the same; sizes may differ. So may parts without data: an instance that started a
    /// moment ago still installs what its server needs.
    pub(crate) fn removes_the_same(&self, other: &Self) -> bool {
        let paths = |parts: &[Part]| -> Vec<PathBuf> {
            parts.iter().filter(|part| part.is_data).map(|part| part.path.clone()).collect()
        };
        let folder = |plan: &Self| plan.workspace.as_ref().map(|tree| (tree.path.clone(), tree.identity));
        paths(&self.remove) == paths(&other.remove)
            && folder(self) == folder(other)
            && (self.identity, &self.repositories) == (other.identity, &other.repositories)
            && (self.must_type_workspace_path, &self.not_ours) == (other.must_type_workspace_path, &other.not_ours)
    }
}

/// Plans the uninstall, or returns the reason for a refusal.
pub fn plan(facts: &UninstallFacts, request: &Request) -> Result<UninstallPlan, UninstallRefusal> {
    require_own_home(facts)?;
    if !request.purge {
        return Ok(removal_of_programs(facts));
    }
    check(&facts.home, facts)?;
    // A workspace inside the home is removed with it, but checked all the same.
    let workspace = facts.workspace.as_ref().filter(|_| !request.keep_workspace);
    let must_type_workspace_path = match workspace {
        Some(workspace) => check_workspace(workspace, facts, request)?,
        None => false,
    };
    let repositories = unsaved_repositories(facts, workspace, request)?;
    refuse_kept_workspace_inside(facts, request)?;
    Ok(UninstallPlan {
        purge: true,
        remove: facts.parts.clone(),
        // A workspace that only config.yaml names is among `not_ours`.
        keep: facts
            .kept_workspace
            .iter()
            .filter(|part| Some(&part.path) != facts.other_workspace.as_ref())
            .cloned()
            .collect(),
        workspace: workspace.cloned(),
        not_ours: facts.not_ours.iter().chain(&facts.other_workspace).chain(home_mount(facts)).cloned().collect(),
        repositories,
        must_type_workspace_path,
        ..removal_of_programs(facts)
    })
}

/// The home if it is a mount point: it is emptied, not removed.
fn home_mount(facts: &UninstallFacts) -> Option<&PathBuf> {
    facts.home.mounts.iter().find(|mount| **mount == facts.home.path)
}

/// Refuses a home without a receipt, or with the receipt of another home.
fn require_own_home(facts: &UninstallFacts) -> Result<(), UninstallRefusal> {
    let home = &facts.home.path;
    match &facts.receipt_home {
        None => Err(UninstallRefusal::NoReceipt(home.clone())),
        Some(other) if other != home => Err(UninstallRefusal::OtherHome { home: home.clone(), other: other.clone() }),
        Some(_) => Ok(()),
    }
}

/// The plan without `--purge`: all data stays.
fn removal_of_programs(facts: &UninstallFacts) -> UninstallPlan {
    let (keep, remove) = facts.parts.iter().chain(&facts.kept_workspace).cloned().partition(|part| part.is_data);
    UninstallPlan {
        purge: false,
        remove,
        keep,
        home: facts.home.path.clone(),
        identity: facts.home.identity,
        workspace: None,
        not_ours: facts.not_ours.clone(),
        repositories: Vec::new(),
        must_type_workspace_path: false,
        shell_files: facts.shell_files.clone(),
        service: facts.service.clone(),
    }
}

/// Checks the workspace to remove. Returns true when the user must type its path, because it existed before Leoflow.
fn check_workspace(workspace: &Tree, facts: &UninstallFacts, request: &Request) -> Result<bool, UninstallRefusal> {
    check(workspace, facts)?;
    let needs_confirmation = !facts.made_workspace && !request.include_workspace;
    match needs_confirmation && request.yes {
        true => Err(UninstallRefusal::WorkspaceNotMade(workspace.path.clone())),
        false => Ok(needs_confirmation),
    }
}

/// Returns the repositories with uncommitted or unpushed work. Refuses to remove them without a prompt or an option.
fn unsaved_repositories(
    facts: &UninstallFacts,
    workspace: Option<&Tree>,
    request: &Request,
) -> Result<Vec<Repository>, UninstallRefusal> {
    let in_workspace = workspace.into_iter().flat_map(|tree| &tree.repositories);
    let repositories: Vec<Repository> = facts.home.repositories.iter().chain(in_workspace).cloned().collect();
    match !repositories.is_empty() && request.yes && !request.include_repositories {
        true => Err(UninstallRefusal::Repositories(repositories)),
        false => Ok(repositories),
    }
}

/// Refuses to keep a workspace that is inside the home.
fn refuse_kept_workspace_inside(facts: &UninstallFacts, request: &Request) -> Result<(), UninstallRefusal> {
    let home = &facts.home.path;
    let kept = facts.workspace.as_ref().filter(|tree| request.keep_workspace && tree.path.starts_with(home));
    kept.map_or(Ok(()), |kept| {
        let what = if kept.path == *home { "the workspace" } else { "the workspace, which must stay" };
        Err(UninstallRefusal::TooWide { path: home.clone(), what })
    })
}

/// Refuses a tree for reasons that no option overrides.
fn check(tree: &Tree, facts: &UninstallFacts) -> Result<(), UninstallRefusal> {
    let path = tree.path.clone();
    if tree.is_link {
        return Err(UninstallRefusal::Link(path));
    }
    let contains = |other: &Path| other.starts_with(&tree.path);
    if tree.path.parent().is_none() {
        return Err(UninstallRefusal::TooWide { path, what: "the whole system" });
    }
    if facts.user_homes.iter().any(|home| contains(home)) {
        return Err(UninstallRefusal::TooWide { path, what: "your home directory" });
    }
    if tree.path != facts.home.path && contains(&facts.home.path) {
        return Err(UninstallRefusal::TooWide { path, what: "Leoflow's home" });
    }
    let home_mount = home_mount(facts).filter(|home| **home == tree.path);
    if let Some(mount) = tree.mounts.iter().find(|mount| Some(*mount) != home_mount) {
        return Err(UninstallRefusal::Mount { path, mount: mount.clone() });
    }
    if let Some(file) = tree.owned_by_others.first() {
        return Err(UninstallRefusal::OtherOwner { path, file: file.clone() });
    }
    if let Some(unreadable) = tree.unreadable.first() {
        return Err(UninstallRefusal::Unreadable { path, unreadable: unreadable.clone() });
    }
    if tree.parent_is_read_only { Err(UninstallRefusal::ReadOnlyParent(path)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str) -> Tree {
        Tree { path: path.into(), bytes: 1, ..Tree::default() }
    }

    fn part(what: &'static str, is_data: bool) -> Part {
        Part { what, path: format!("/u/.leoflow/{what}").into(), bytes: Some(1), is_data }
    }

    fn facts() -> UninstallFacts {
        UninstallFacts {
            home: tree("/u/.leoflow"),
            receipt_home: Some("/u/.leoflow".into()),
            user_homes: vec!["/u".into()],
            workspace: Some(tree("/u/leoflow")),
            made_workspace: true,
            other_workspace: None,
            kept_workspace: None,
            not_ours: Vec::new(),
            parts: vec![part("programs", false), part("datastore", true)],
            shell_files: vec!["/u/.profile".into()],
            service: None,
        }
    }

    const PURGE: Request = Request {
        purge: true,
        keep_workspace: false,
        include_workspace: false,
        include_repositories: false,
        yes: true,
    };

    #[test]
    fn only_a_purge_removes_data() {
        let plain = plan(&facts(), &Request::default()).unwrap();
        assert_eq!((plain.remove.len(), plain.keep.len()), (1, 1));
        assert!(plain.workspace.is_none() && plain.keep[0].is_data);
        let full_plan = plan(&facts(), &PURGE).unwrap();
        assert_eq!((full_plan.remove.len(), full_plan.keep.len()), (2, 0));
        assert_eq!(full_plan.workspace.unwrap().path, Path::new("/u/leoflow"));
        assert!(plan(&facts(), &Request { keep_workspace: true, ..PURGE }).unwrap().workspace.is_none());
    }

    #[test]
    fn a_plan_stays_the_same_until_data_is_added() {
        let shown = plan(&facts(), &PURGE).unwrap();
        let with = |added: Part| {
            let parts = facts().parts.into_iter().chain([added]).collect();
            plan(&UninstallFacts { parts, ..facts() }, &PURGE).unwrap()
        };
        assert!(with(part("Python", false)).removes_the_same(&shown));
        assert!(!with(part("backups", true)).removes_the_same(&shown));
    }

    #[test]
    fn a_workspace_that_stays_is_listed() {
        let kept = Part { what: "the workspace", path: "/u/leoflow".into(), bytes: Some(1), is_data: true };
        let facts = UninstallFacts { kept_workspace: Some(kept.clone()), ..facts() };
        assert_eq!(plan(&facts, &Request::default()).unwrap().keep.last(), Some(&kept));
        assert_eq!(plan(&facts, &Request { keep_workspace: true, ..PURGE }).unwrap().keep, [kept]);
    }

    #[test]
    fn never_purges_an_unsafe_tree() {
        for path in ["/", "/u", "/u/.leoflow/.."] {
            let real = if path.ends_with("..") { "/u" } else { path };
            let too_wide = UninstallFacts { workspace: Some(tree(real)), ..facts() };
            let request = Request { include_workspace: true, include_repositories: true, ..PURGE };
            assert!(matches!(plan(&too_wide, &request), Err(UninstallRefusal::TooWide { .. })), "{path}");
        }
        let home = UninstallFacts { home: tree("/u"), receipt_home: Some("/u".into()), workspace: None, ..facts() };
        assert!(matches!(plan(&home, &PURGE), Err(UninstallRefusal::TooWide { .. })));
        for obstructed in [
            Tree { is_link: true, ..tree("/w") },
            Tree { mounts: vec!["/w/m".into()], ..tree("/w") },
            Tree { owned_by_others: vec!["/w/root".into()], ..tree("/w") },
            Tree { unreadable: vec!["/w/unreadable".into()], ..tree("/w") },
            Tree { parent_is_read_only: true, ..tree("/w") },
        ] {
            assert!(
                plan(&UninstallFacts { workspace: Some(obstructed.clone()), ..facts() }, &PURGE).is_err(),
                "{obstructed:?}"
            );
            let home = Tree { path: "/u/.leoflow".into(), ..obstructed };
            assert!(plan(&UninstallFacts { home: home.clone(), ..facts() }, &PURGE).is_err(), "{home:?}");
        }
    }

    #[test]
    fn a_home_that_is_a_mount_point_is_emptied_and_stays() {
        let mounted = |path: &str| Tree { mounts: vec![path.into()], ..tree(path) };
        let emptied = plan(&UninstallFacts { home: mounted("/u/.leoflow"), ..facts() }, &PURGE).unwrap();
        assert_eq!(emptied.not_ours, [PathBuf::from("/u/.leoflow")]);
        let workspace = UninstallFacts { workspace: Some(mounted("/u/leoflow")), ..facts() };
        assert!(matches!(plan(&workspace, &PURGE), Err(UninstallRefusal::Mount { .. })));
        let below = Tree { mounts: vec!["/u/.leoflow".into(), "/u/.leoflow/backups".into()], ..tree("/u/.leoflow") };
        let refused = plan(&UninstallFacts { home: below, ..facts() }, &PURGE);
        assert!(matches!(refused, Err(UninstallRefusal::Mount { mount, .. }) if mount.ends_with("backups")));
    }

    #[test]
    fn requires_the_homes_own_receipt() {
        assert!(matches!(
            plan(&UninstallFacts { receipt_home: None, ..facts() }, &PURGE),
            Err(UninstallRefusal::NoReceipt(_))
        ));
        let other = UninstallFacts { receipt_home: Some("/other".into()), ..facts() };
        assert!(matches!(plan(&other, &Request::default()), Err(UninstallRefusal::OtherHome { .. })));
    }

    #[test]
    fn a_preexisting_workspace_needs_confirmation_by_path() {
        let preexisting = UninstallFacts { made_workspace: false, ..facts() };
        assert!(matches!(plan(&preexisting, &PURGE), Err(UninstallRefusal::WorkspaceNotMade(_))));
        assert!(plan(&preexisting, &Request { yes: false, ..PURGE }).unwrap().must_type_workspace_path);
        assert!(!plan(&preexisting, &Request { include_workspace: true, ..PURGE }).unwrap().must_type_workspace_path);
    }

    #[test]
    fn unsaved_work_needs_an_explicit_option() {
        let repository = Repository { path: "/u/leoflow/p".into(), why: "3 files".into() };
        let workspace = Tree { repositories: vec![repository], ..tree("/u/leoflow") };
        let facts = UninstallFacts { workspace: Some(workspace), ..facts() };
        assert!(matches!(plan(&facts, &PURGE), Err(UninstallRefusal::Repositories(_))));
        assert!(plan(&facts, &Request { yes: false, ..PURGE }).is_ok(), "shown, and confirmed by prompt");
        assert!(plan(&facts, &Request { include_repositories: true, ..PURGE }).is_ok());
        assert!(plan(&facts, &Request { keep_workspace: true, ..PURGE }).is_ok());
    }
}
