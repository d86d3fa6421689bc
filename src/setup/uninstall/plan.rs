//! What an uninstall removes, or why it must not. Pure: `--dry-run` prints it, the question shows it.

use super::repositories::Repository;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    pub purge: bool,
    pub keep_workspace: bool,
    /// Also a workspace that was there before Leoflow.
    pub include_workspace: bool,
    /// Also version control that has work which exists nowhere else.
    pub include_repositories: bool,
    /// Nobody will be asked.
    pub yes: bool,
}

/// A folder that may have to go, as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    pub path: PathBuf,
    /// Bytes on the disk.
    pub bytes: u64,
    pub is_link: bool,
    /// Mount points at it or below it.
    pub mounts: Vec<PathBuf>,
    /// What belongs to other users, the first few.
    pub foreign: Vec<PathBuf>,
    /// Folders that cannot be looked into, the first few.
    pub closed: Vec<PathBuf>,
    /// Whether the folder above lets us remove it.
    pub is_fixed: bool,
    /// Tells it from another folder that comes to its place.
    pub identity: Identity,
    /// Repositories with work that exists nowhere else, or that cannot be asked.
    pub repositories: Vec<Repository>,
}

/// The inode at a path. Not the device, whose number may be another after a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub inode: u64,
}

/// What there is.
#[derive(Debug, Clone)]
pub struct Facts {
    pub home: Tree,
    /// As the receipt has it.
    pub receipt_home: Option<PathBuf>,
    /// Real; the user's own home directory, by the environment and by the system.
    pub user_homes: Vec<PathBuf>,
    /// The workspace by the receipt, if it is there.
    pub workspace: Option<Tree>,
    pub made_workspace: bool,
    /// The workspace by config.yaml, where the receipt does not know it.
    pub other_workspace: Option<PathBuf>,
    pub parts: Vec<Part>,
    /// What is in the home and is not Leoflow's.
    pub not_ours: Vec<PathBuf>,
    pub shell_files: Vec<PathBuf>,
    /// The file of the service manager that starts it.
    pub service: Option<PathBuf>,
}

/// Something in the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub what: &'static str,
    pub path: PathBuf,
    pub bytes: u64,
    /// Whether an uninstall without `--purge` keeps it.
    pub is_data: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub purge: bool,
    pub remove: Vec<Part>,
    pub keep: Vec<Part>,
    pub home: PathBuf,
    /// Of the home's folder itself.
    pub identity: Identity,
    /// Goes too.
    pub workspace: Option<Tree>,
    /// What stays because setup has not made it: in the home, and a workspace that only config.yaml names.
    pub not_ours: Vec<PathBuf>,
    /// Work that goes with it and exists nowhere else.
    pub repositories: Vec<Repository>,
    /// Whether its path has to be typed first.
    pub type_workspace: bool,
    pub shell_files: Vec<PathBuf>,
    pub service: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("nothing in {0} says that Leoflow was set up there (setup.json is missing)")]
    NoReceipt(PathBuf),
    #[error("setup.json in {home} is of another home, {other}")]
    OtherHome { home: PathBuf, other: PathBuf },
    #[error("{0} is a link; what it leads to is not removed through it")]
    Link(PathBuf),
    #[error("{path} is or holds {what}")]
    TooWide { path: PathBuf, what: &'static str },
    #[error("{path} is or holds a mount point: {mount}")]
    Mount { path: PathBuf, mount: PathBuf },
    #[error("{path} holds what belongs to another user: {foreign}")]
    Foreign { path: PathBuf, foreign: PathBuf },
    #[error("{path} holds a folder that cannot be looked into: {closed}")]
    Closed { path: PathBuf, closed: PathBuf },
    #[error("{0} cannot be removed, because the folder above it may not be written")]
    Fixed(PathBuf),
    #[error("the workspace {0} was there before Leoflow")]
    WorkspaceNotMade(PathBuf),
    #[error("there is work in {} repositories that exists nowhere else", .0.len())]
    Repositories(Vec<Repository>),
}

impl Plan {
    /// Whether another plan removes the same; sizes may change meanwhile.
    pub fn removes_the_same(&self, other: &Self) -> bool {
        let paths = |parts: &[Part]| parts.iter().map(|part| part.path.clone()).collect::<Vec<_>>();
        let folder = |plan: &Self| plan.workspace.as_ref().map(|tree| (tree.path.clone(), tree.identity));
        paths(&self.remove) == paths(&other.remove)
            && folder(self) == folder(other)
            && (self.identity, &self.repositories) == (other.identity, &other.repositories)
            && (self.type_workspace, &self.not_ours) == (other.type_workspace, &other.not_ours)
    }
}

pub fn plan(facts: &Facts, wishes: &Wishes) -> Result<Plan, Refusal> {
    let home = &facts.home;
    match &facts.receipt_home {
        None => return Err(Refusal::NoReceipt(home.path.clone())),
        Some(other) if *other != home.path => {
            return Err(Refusal::OtherHome { home: home.path.clone(), other: other.clone() });
        }
        Some(_) => {}
    }
    if !wishes.purge {
        let (keep, remove) = facts.parts.iter().cloned().partition(|part| part.is_data);
        let shell_files = facts.shell_files.clone();
        return Ok(Plan {
            purge: false,
            remove,
            keep,
            home: home.path.clone(),
            identity: home.identity,
            workspace: None,
            not_ours: facts.not_ours.clone(),
            repositories: Vec::new(),
            type_workspace: false,
            shell_files,
            service: facts.service.clone(),
        });
    }
    check(home, facts)?;
    // One below the home goes with it, and is looked at all the same.
    let workspace = facts.workspace.clone().filter(|_| !wishes.keep_workspace);
    let mut type_workspace = false;
    if let Some(workspace) = &workspace {
        check(workspace, facts)?;
        let theirs = !facts.made_workspace && !wishes.include_workspace;
        if theirs && wishes.yes {
            return Err(Refusal::WorkspaceNotMade(workspace.path.clone()));
        }
        type_workspace = theirs;
    }
    let repositories: Vec<Repository> =
        home.repositories.iter().chain(workspace.iter().flat_map(|tree| &tree.repositories)).cloned().collect();
    if !repositories.is_empty() && wishes.yes && !wishes.include_repositories {
        return Err(Refusal::Repositories(repositories));
    }
    if let Some(kept) =
        facts.workspace.as_ref().filter(|tree| wishes.keep_workspace && tree.path.starts_with(&home.path))
    {
        return Err(Refusal::TooWide {
            path: home.path.clone(),
            what: if kept.path == home.path { "the workspace" } else { "the workspace, which is to stay" },
        });
    }
    Ok(Plan {
        purge: true,
        remove: facts.parts.clone(),
        keep: Vec::new(),
        home: home.path.clone(),
        identity: home.identity,
        workspace,
        not_ours: facts.not_ours.iter().chain(&facts.other_workspace).cloned().collect(),
        repositories,
        type_workspace,
        shell_files: facts.shell_files.clone(),
        service: facts.service.clone(),
    })
}

/// What no flag makes right.
fn check(tree: &Tree, facts: &Facts) -> Result<(), Refusal> {
    let path = tree.path.clone();
    if tree.is_link {
        return Err(Refusal::Link(path));
    }
    let holds = |other: &Path| other.starts_with(&tree.path);
    if tree.path.parent().is_none() {
        return Err(Refusal::TooWide { path, what: "the whole system" });
    }
    if facts.user_homes.iter().any(|home| holds(home)) {
        return Err(Refusal::TooWide { path, what: "your home directory" });
    }
    if tree.path != facts.home.path && holds(&facts.home.path) {
        return Err(Refusal::TooWide { path, what: "Leoflow's home" });
    }
    if let Some(mount) = tree.mounts.first() {
        return Err(Refusal::Mount { path, mount: mount.clone() });
    }
    if let Some(foreign) = tree.foreign.first() {
        return Err(Refusal::Foreign { path, foreign: foreign.clone() });
    }
    if let Some(closed) = tree.closed.first() {
        return Err(Refusal::Closed { path, closed: closed.clone() });
    }
    if tree.is_fixed { Err(Refusal::Fixed(path)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str) -> Tree {
        Tree { path: path.into(), bytes: 1, ..Tree::default() }
    }

    fn part(what: &'static str, is_data: bool) -> Part {
        Part { what, path: format!("/u/.leoflow/{what}").into(), bytes: 1, is_data }
    }

    fn facts() -> Facts {
        Facts {
            home: tree("/u/.leoflow"),
            receipt_home: Some("/u/.leoflow".into()),
            user_homes: vec!["/u".into()],
            workspace: Some(tree("/u/leoflow")),
            made_workspace: true,
            other_workspace: None,
            not_ours: Vec::new(),
            parts: vec![part("programs", false), part("datastore", true)],
            shell_files: vec!["/u/.profile".into()],
            service: None,
        }
    }

    const PURGE: Wishes =
        Wishes { purge: true, keep_workspace: false, include_workspace: false, include_repositories: false, yes: true };

    #[test]
    fn data_stays_unless_it_is_a_purge() {
        let plain = plan(&facts(), &Wishes::default()).unwrap();
        assert_eq!((plain.remove.len(), plain.keep.len()), (1, 1));
        assert!(plain.workspace.is_none() && plain.keep[0].is_data);
        let whole = plan(&facts(), &PURGE).unwrap();
        assert_eq!((whole.remove.len(), whole.keep.len()), (2, 0));
        assert_eq!(whole.workspace.unwrap().path, Path::new("/u/leoflow"));
        assert!(plan(&facts(), &Wishes { keep_workspace: true, ..PURGE }).unwrap().workspace.is_none());
    }

    #[test]
    fn what_holds_more_than_ours_is_never_purged() {
        for path in ["/", "/u", "/u/.leoflow/.."] {
            let real = if path.ends_with("..") { "/u" } else { path };
            let wide = Facts { workspace: Some(tree(real)), ..facts() };
            let wishes = Wishes { include_workspace: true, include_repositories: true, ..PURGE };
            assert!(matches!(plan(&wide, &wishes), Err(Refusal::TooWide { .. })), "{path}");
        }
        let home = Facts { home: tree("/u"), receipt_home: Some("/u".into()), workspace: None, ..facts() };
        assert!(matches!(plan(&home, &PURGE), Err(Refusal::TooWide { .. })));
        for spoilt in [
            Tree { is_link: true, ..tree("/w") },
            Tree { mounts: vec!["/w/m".into()], ..tree("/w") },
            Tree { foreign: vec!["/w/root".into()], ..tree("/w") },
            Tree { closed: vec!["/w/closed".into()], ..tree("/w") },
            Tree { is_fixed: true, ..tree("/w") },
        ] {
            assert!(plan(&Facts { workspace: Some(spoilt.clone()), ..facts() }, &PURGE).is_err(), "{spoilt:?}");
            let home = Tree { path: "/u/.leoflow".into(), ..spoilt };
            assert!(plan(&Facts { home: home.clone(), ..facts() }, &PURGE).is_err(), "{home:?}");
        }
    }

    #[test]
    fn only_a_home_with_its_own_receipt() {
        assert!(matches!(plan(&Facts { receipt_home: None, ..facts() }, &PURGE), Err(Refusal::NoReceipt(_))));
        let other = Facts { receipt_home: Some("/elsewhere".into()), ..facts() };
        assert!(matches!(plan(&other, &Wishes::default()), Err(Refusal::OtherHome { .. })));
    }

    #[test]
    fn a_workspace_that_was_there_before_is_asked_for_by_name() {
        let theirs = Facts { made_workspace: false, ..facts() };
        assert!(matches!(plan(&theirs, &PURGE), Err(Refusal::WorkspaceNotMade(_))));
        assert!(plan(&theirs, &Wishes { yes: false, ..PURGE }).unwrap().type_workspace);
        assert!(!plan(&theirs, &Wishes { include_workspace: true, ..PURGE }).unwrap().type_workspace);
    }

    #[test]
    fn work_that_exists_nowhere_else_is_not_removed_by_a_plain_yes() {
        let repository = Repository { path: "/u/leoflow/p".into(), why: "3 files".into() };
        let workspace = Tree { repositories: vec![repository], ..tree("/u/leoflow") };
        let facts = Facts { workspace: Some(workspace), ..facts() };
        assert!(matches!(plan(&facts, &PURGE), Err(Refusal::Repositories(_))));
        assert!(plan(&facts, &Wishes { yes: false, ..PURGE }).is_ok(), "shown, and asked for");
        assert!(plan(&facts, &Wishes { include_repositories: true, ..PURGE }).is_ok());
        assert!(plan(&facts, &Wishes { keep_workspace: true, ..PURGE }).is_ok());
    }
}
