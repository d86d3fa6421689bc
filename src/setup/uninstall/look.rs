//! What there is to remove, and what stands in the way. Follows no link and changes nothing.

use super::plan::{Facts, Identity, Part, Tree};
use super::repositories::{Kind as RepositoryKind, Repository, uncommitted_inside, unsaved};
use crate::config;
use crate::home::journal::{self, JournalError, Operation};
use crate::home::{Home, config_files, foreign};
use crate::setup::receipt::{Receipt, ReceiptError};
use crate::setup::service;
use crate::sys::beneath::{Folder, Kind};
use crate::sys::{env_vars, mounts, user};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot look at {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// How many of other users' files are named.
const NAMED: usize = 5;
const OTHERS: [(&str, &str); 5] =
    [(".hg", "Mercurial"), (".svn", "Subversion"), (".bzr", "Bazaar"), (".jj", "Jujutsu"), ("_darcs", "Darcs")];

/// `purge` asks for what only a purge needs to know: who owns what, and what is under version control.
pub fn gather(home: &Home, purge: bool) -> Result<Facts, FactsError> {
    let receipt = Receipt::load(home)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| FactsError::Io { path, source }
    };
    let root = home.root();
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut home_tree =
        if purge { look(root).map_err(io(root))? } else { Tree { path: real(root), ..Tree::default() } };
    // What uv and the packages bring is got again: uv's cache looks like a repository, and a package may hold one.
    let got_again = [real(&home.tools().join("uv")), real(&home.environments())];
    home_tree.repositories.retain(|one| !got_again.iter().any(|place| one.path.starts_with(place)));
    let workspace = match receipt.as_ref().map(|receipt| receipt.workspace.clone()) {
        Some(path) if purge && fs::symlink_metadata(&path).is_ok() => Some(look(&path).map_err(io(&path))?),
        _ => None,
    };
    Ok(Facts {
        home: home_tree,
        receipt_home: match &receipt {
            Some(receipt) => Some(real(&receipt.home)),
            // A first setup that was interrupted had not come to its receipt; its journal says the same.
            None => journal::unfinished(home)?.filter(|e| e.operation == Operation::Setup).map(|_| real(root)),
        },
        user_homes: user_homes(),
        workspace,
        made_workspace: receipt.as_ref().is_some_and(|receipt| receipt.made_workspace),
        other_workspace: other_workspace(home, receipt.as_ref()),
        parts: parts(home),
        not_ours: foreign(home),
        service: service::installed_file(home)?,
        shell_files: receipt.map(|receipt| receipt.shell_files).unwrap_or_default(),
    })
}

/// One that somebody has written into config.yaml: what is there was never setup's to remove.
fn other_workspace(home: &Home, receipt: Option<&Receipt>) -> Option<PathBuf> {
    let configured = config::load(&home.config()).ok().flatten()?.config.workspace?;
    receipt.is_none_or(|receipt| receipt.workspace != configured).then_some(configured)
}

fn user_homes() -> Vec<PathBuf> {
    let both = [env_vars::user_home(), user::home_by_passwd()];
    both.into_iter().flatten().map(|path| path.canonicalize().unwrap_or(path)).collect()
}

/// The parts of a home, and whether they hold what the user has made. Everything that is not named is
/// the user's.
fn parts(home: &Home) -> Vec<Part> {
    let root = home.root();
    let known: [(&'static str, PathBuf, bool); 16] = [
        ("programs", home.bin(), false),
        ("installed versions", home.versions(), false),
        ("what upgrades have left", home.upgrade(), false),
        ("PostgreSQL", home.postgres_installs(), false),
        ("Python", home.python(), false),
        ("Python packages", root.join("venv"), false),
        ("environments of projects", home.environments(), false),
        ("uv and what it has downloaded", home.tools(), false),
        ("Airflow's web UI", home.ui(), false),
        ("logs of the processes", home.logs(), false),
        ("datastore", home.postgres_data(), true),
        ("datastore's passwords", home.postgres_credentials(), true),
        ("configuration and secrets", home.config(), true),
        ("task logs", home.task_logs(), true),
        ("backups", home.backups(), true),
        ("what the last restore replaced", home.restore(), true),
    ];
    let there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let over = config_files::over(&home.config()).unwrap_or_default();
    let over = over.into_iter().map(|path| ("configuration that goes over it", path, true));
    known
        .into_iter()
        .chain(over)
        .filter(|(_, path, _)| there(path))
        .map(|(what, path, is_data)| Part { what, bytes: bytes(&path), path, is_data })
        .collect()
}

/// What a file or folder takes on the disk.
fn bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let mut walk = Walk { uid: user::effective_uid(), tree: Tree::default(), repositories: Vec::new() };
            if let Ok(root) = Folder::open(path) {
                walk.folder(&root, PathBuf::new());
            }
            walk.tree.bytes
        }
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    }
}

fn look(path: &Path) -> io::Result<Tree> {
    // Without a slash at its end, which would be followed through a link.
    let path: &Path = &path.components().collect::<PathBuf>();
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(Tree { path: path.to_owned(), is_link: true, ..Tree::default() });
    }
    let real = path.canonicalize()?;
    let is_fixed = real.parent().is_some_and(|above| !user::may_write(above));
    let identity = Identity { inode: meta.ino() };
    let own = user::effective_uid();
    let mut walk = Walk { uid: own, tree: Tree { path: real.clone(), ..Tree::default() }, repositories: Vec::new() };
    if meta.uid() != own {
        walk.tree.foreign.push(real.clone());
    }
    walk.tree.mounts = mounts::at_or_below(&real)?;
    // A tree that will be refused for its breadth or its mounts is not walked: it may be the whole disk.
    let too_wide = real.parent().is_none() || user_homes().iter().any(|home| home.starts_with(&real));
    if too_wide || !walk.tree.mounts.is_empty() {
        return Ok(walk.tree);
    }
    if meta.is_dir() {
        walk.folder(&Folder::open(&real)?, PathBuf::new());
    }
    let found = walk.repositories.iter().filter_map(|(below, kind)| unsaved(&real.join(below), *kind));
    let mut repositories: Vec<Repository> = found.collect();
    if !walk.repositories.iter().any(|(below, _)| below.as_os_str().is_empty()) {
        repositories.extend(uncommitted_inside(&real));
    }
    Ok(Tree { repositories, is_fixed, identity, ..walk.tree })
}

struct Walk {
    uid: u32,
    tree: Tree,
    repositories: Vec<(PathBuf, RepositoryKind)>,
}

impl Walk {
    fn folder(&mut self, root: &Folder, below: PathBuf) {
        let Ok(entries) = root.below(&below).and_then(|folder| folder.entries()) else {
            if self.tree.closed.len() < NAMED {
                self.tree.closed.push(self.tree.path.join(&below));
            }
            return;
        };
        let has = |name: &str| entries.iter().any(|entry| entry.name == name);
        if has(".git") {
            self.repositories.push((below.clone(), RepositoryKind::Git));
        } else if has("HEAD") && has("objects") && has("refs") && !below.ends_with(".git") {
            self.repositories.push((below.clone(), RepositoryKind::BareGit));
        }
        for (_, kind) in OTHERS.iter().filter(|(name, _)| has(name)) {
            self.repositories.push((below.clone(), RepositoryKind::Other(kind)));
        }
        for entry in entries {
            self.tree.bytes += entry.allocated;
            let path = below.join(&entry.name);
            if entry.uid != self.uid && self.tree.foreign.len() < NAMED {
                self.tree.foreign.push(self.tree.path.join(&path));
            }
            if entry.kind == Kind::Folder {
                self.folder(root, path);
            }
        }
    }
}
