//! Gathers the facts for an uninstall: files to remove, and reasons to refuse. Follows no links and changes nothing.

use super::plan::{Identity, Part, Request, Tree, UninstallFacts};
use super::removal::RemoveError;
use super::repositories::{Kind as RepositoryKind, Repository, uncommitted_inside, unsaved};
use crate::setup::receipt::Receipt;
use crate::setup::service;
use leoflow_base::config;
use leoflow_base::home::journal::{self, Operation};
use leoflow_base::home::{Home, config_files, foreign};
use leoflow_base::sys::fs::beneath::{Folder, Kind};
use leoflow_base::sys::fs::mounts;
use leoflow_base::sys::{env_vars, user};
use leoflow_python::linked_venv;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum number of reported paths of a kind.
const MAX_REPORTED: usize = 5;
/// Folders of other version control systems, with their names.
const OTHER_REPOSITORIES: [(&str, &str); 5] =
    [(".hg", "Mercurial"), (".svn", "Subversion"), (".bzr", "Bazaar"), (".jj", "Jujutsu"), ("_darcs", "Darcs")];

/// Gathers the facts. For a purge, also walks the home and the workspace for other users' files and unsaved work.
pub(crate) fn gather(home: &Home, request: &Request) -> Result<UninstallFacts, RemoveError> {
    let receipt = Receipt::load(home)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RemoveError::Inspect { path, source }
    };
    let root = home.root();
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let not_ours = foreign(home);
    let kept: Vec<&Path> = not_ours.iter().filter_map(|path| path.strip_prefix(root).ok()).collect();
    let mut home_tree = match request.purge {
        true => scan(root, &kept).map_err(io(root))?,
        false => Tree { path: canonical(root), ..Tree::default() },
    };
    // uv's cache looks like a repository and a package may contain one, but both can be downloaded again.
    let downloads = [canonical(&home.tools().join("uv")), canonical(&home.environments())];
    home_tree.repositories.retain(|repository| !downloads.iter().any(|folder| repository.path.starts_with(folder)));
    let workspace = match receipt.as_ref().map(|receipt| receipt.workspace.clone()) {
        Some(path) if request.purge && fs::symlink_metadata(&path).is_ok() => {
            Some(scan(&path, &[]).map_err(io(&path))?)
        }
        _ => None,
    };
    Ok(UninstallFacts {
        home: home_tree,
        receipt_home: match &receipt {
            Some(receipt) => Some(canonical(&receipt.home)),
            // An interrupted first setup has no receipt yet; its journal shows that the home is Leoflow's.
            None => {
                journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Setup).map(|_| canonical(root))
            }
        },
        user_homes: user_homes(),
        workspace,
        made_workspace: receipt.as_ref().is_some_and(|receipt| receipt.made_workspace),
        other_workspace: other_workspace(home, receipt.as_ref()),
        kept_workspace: kept_workspace(home, receipt.as_ref(), request),
        parts: parts(home),
        not_ours,
        service: service::installed(home)?.map(|service| service.file),
        shell_files: receipt.map(|receipt| receipt.shell_files).unwrap_or_default(),
    })
}

/// The workspace in config.yaml if it differs from the receipt's: the user chose it, so an uninstall keeps it.
fn other_workspace(home: &Home, receipt: Option<&Receipt>) -> Option<PathBuf> {
    let configured = config::load(&home.config()).ok().flatten()?.config.workspace?;
    receipt.is_none_or(|receipt| receipt.workspace != configured).then_some(configured)
}

/// The workspace in use, unless the purge may remove it.
fn kept_workspace(home: &Home, receipt: Option<&Receipt>, request: &Request) -> Option<Part> {
    let is_kept = !request.purge || request.keep_workspace;
    let configured = config::load(&home.config()).ok().flatten().and_then(|loaded| loaded.config.workspace);
    let path = configured.or_else(|| receipt.map(|receipt| receipt.workspace.clone())).filter(|_| is_kept)?;
    let canonical = path.canonicalize().ok()?;
    // A walk through it might read the whole disk.
    let is_too_wide = user_homes().iter().any(|user_home| user_home.starts_with(&canonical));
    let bytes = (!is_too_wide).then(|| bytes(&canonical));
    Some(Part { what: "the workspace", path, bytes, is_data: true })
}

/// Canonical home directories of the user, by environment and by passwd.
fn user_homes() -> Vec<PathBuf> {
    let candidates = [env_vars::user_home(), user::home_by_passwd()];
    candidates.into_iter().flatten().map(|path| path.canonicalize().unwrap_or(path)).collect()
}

/// The existing parts of a home that Leoflow created. All other files belong to the user.
fn parts(home: &Home) -> Vec<Part> {
    let root = home.root();
    let known: [(&'static str, PathBuf, bool); 18] = [
        ("programs", home.bin(), false),
        ("installed versions", home.versions(), false),
        ("files of upgrades", home.upgrade(), false),
        ("PostgreSQL", home.postgres_installs(), false),
        ("Python", home.python(), false),
        ("Python packages", root.join("venv"), false),
        ("environments of projects", home.environments(), false),
        ("links to virtual environments", home.linked(), false),
        ("uv and its downloads", home.tools(), false),
        ("Airflow's web UI", home.ui(), false),
        ("logs of the processes", home.logs(), false),
        ("datastore", home.postgres_data(), true),
        ("datastore's passwords", home.postgres_credentials(), true),
        ("configuration and secrets", home.config(), true),
        ("task logs", home.task_logs(), true),
        ("records of brought repositories", home.brought(), true),
        ("backups", home.backups(), true),
        ("data replaced by the last restore", home.restore(), true),
    ];
    let exists = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let override_files = config_files::override_files(&home.config()).unwrap_or_default();
    let overrides = override_files.into_iter().map(|path| ("configuration overrides", path, true));
    let linked = linked_venv::all(home).into_iter().map(|path| ("virtual environment for editors", path, false));
    // Before the links in the home that lead to them.
    linked
        .chain(known)
        .chain(overrides)
        .filter(|(_, path, _)| exists(path))
        .map(|(what, path, is_data)| Part { what, bytes: Some(bytes(&path)), path, is_data })
        .collect()
}

/// Allocated size of a file or folder, in bytes.
pub(super) fn bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let mut walk =
                Walk { uid: user::effective_uid(), tree: Tree::default(), repositories: Vec::new(), kept: &[] };
            if let Ok(root) = Folder::open(path) {
                walk.visit_folder(&root, PathBuf::new());
            }
            walk.tree.bytes
        }
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    }
}

/// Inspects a tree. `kept` are the paths relative to it that stay. Fails if the tree itself cannot be read.
fn scan(path: &Path, kept: &[&Path]) -> io::Result<Tree> {
    // Removes a trailing slash, which would make `symlink_metadata` follow a link.
    let path: &Path = &path.components().collect::<PathBuf>();
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(Tree { path: path.to_owned(), is_link: true, ..Tree::default() });
    }
    let canonical = path.canonicalize()?;
    let mounts = mounts::at_or_below(&canonical)?;
    // A mount point cannot be removed from its parent anyway.
    let is_mount = mounts.contains(&canonical);
    let parent_is_read_only = !is_mount && canonical.parent().is_some_and(|parent| !user::may_write(parent));
    let identity = Identity { inode: meta.ino() };
    let own_uid = user::effective_uid();
    let mut walk = Walk {
        uid: own_uid,
        kept,
        tree: Tree { path: canonical.clone(), mounts, ..Tree::default() },
        repositories: Vec::new(),
    };
    if meta.uid() != own_uid {
        walk.tree.owned_by_others.push(canonical.clone());
    }
    // The plan refuses this tree anyway, and a walk might read the whole disk.
    let is_too_wide = canonical.parent().is_none() || user_homes().iter().any(|home| home.starts_with(&canonical));
    if is_too_wide || walk.tree.mounts.iter().any(|mount| *mount != canonical) {
        return Ok(walk.tree);
    }
    if meta.is_dir() {
        walk.visit_folder(&Folder::open(&canonical)?, PathBuf::new());
    }
    let unsaved = walk.repositories.iter().filter_map(|(relative, kind)| unsaved(&canonical.join(relative), *kind));
    let mut repositories: Vec<Repository> = unsaved.collect();
    if !walk.repositories.iter().any(|(relative, _)| relative.as_os_str().is_empty()) {
        repositories.extend(uncommitted_inside(&canonical));
    }
    Ok(Tree { repositories, parent_is_read_only, identity, ..walk.tree })
}

/// A walk through a tree, with the results so far.
struct Walk<'a> {
    uid: u32,
    kept: &'a [&'a Path],
    tree: Tree,
    repositories: Vec<(PathBuf, RepositoryKind)>,
}

impl Walk<'_> {
    fn is_kept(&self, path: &Path) -> bool {
        self.kept.iter().any(|kept| path.starts_with(kept))
    }

    /// Inspects the folder `relative` of `root` and everything below it.
    fn visit_folder(&mut self, root: &Folder, relative: PathBuf) {
        let Ok(entries) = root.below(&relative).and_then(|folder| folder.entries()) else {
            if self.tree.unreadable.len() < MAX_REPORTED && !self.is_kept(&relative) {
                self.tree.unreadable.push(self.tree.path.join(&relative));
            }
            return;
        };
        let has = |name: &str| entries.iter().any(|entry| entry.name == name);
        if has(".git") {
            self.repositories.push((relative.clone(), RepositoryKind::Git));
        } else if has("HEAD") && has("objects") && has("refs") && !relative.ends_with(".git") {
            self.repositories.push((relative.clone(), RepositoryKind::BareGit));
        }
        for (_, kind) in OTHER_REPOSITORIES.iter().filter(|(name, _)| has(name)) {
            self.repositories.push((relative.clone(), RepositoryKind::Other(kind)));
        }
        for entry in entries {
            self.tree.bytes += entry.allocated;
            let path = relative.join(&entry.name);
            if entry.uid != self.uid && self.tree.owned_by_others.len() < MAX_REPORTED && !self.is_kept(&path) {
                self.tree.owned_by_others.push(self.tree.path.join(&path));
            }
            if entry.kind == Kind::Folder {
                self.visit_folder(root, path);
            }
        }
    }
}
