//! Finds repositories with unsaved work: uncommitted files, or commits that no remote has.

use leoflow_base::counted::counted;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::command::{self, output_within};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub path: PathBuf,
    /// Description of the unsaved work, or why its state is unknown.
    pub why: String,
}

/// Kinds of repositories; only git's state can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Git,
    BareGit,
    Other(&'static str),
}

#[derive(Debug, thiserror::Error)]
enum GitError {
    #[error("git failed: {0}")]
    Run(#[from] io::Error),
    /// The first line of its error output.
    #[error("git failed: {0}")]
    Failed(String),
}

/// Time limit of a git command, enough for the status of a large repository.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns the repository if it has unsaved work.
pub fn unsaved(path: &Path, kind: Kind) -> Option<Repository> {
    let repository = |why: String| Some(Repository { path: path.to_owned(), why });
    let why = match kind {
        Kind::Other(name) => return repository(format!("it is a {name} repository, whose state Leoflow cannot read")),
        Kind::Git => uncommitted(path, &[]).transpose().or_else(|| unpushed(path).transpose()),
        Kind::BareGit => unpushed(path).transpose(),
    };
    match why {
        None => None,
        Some(Ok(why)) => repository(why),
        Some(Err(error)) => repository(error.to_string()),
    }
}

/// Checks a folder inside a larger working tree for uncommitted files.
pub fn uncommitted_inside(folder: &Path) -> Option<Repository> {
    if !folder.ancestors().skip(1).any(|ancestor| ancestor.join(".git").exists()) {
        return None;
    }
    let why = match uncommitted(folder, &["--", "."]) {
        Ok(why) => why?,
        Err(error) => error.to_string(),
    };
    Some(Repository { path: folder.to_owned(), why })
}

/// Counts uncommitted files; `None` if there are none.
fn uncommitted(path: &Path, more_arguments: &[&str]) -> Result<Option<String>, GitError> {
    let text = git(path, &[&["status", "--porcelain", "--untracked-files=all"], more_arguments].concat())?;
    let count = text.lines().count();
    Ok((count > 0).then(|| format!("{} not committed", counted(count, "file"))))
}

/// Counts commits that no remote branch contains, including stashes; `None` if there are none.
fn unpushed(path: &Path) -> Result<Option<String>, GitError> {
    let count = git(path, &["rev-list", "--count", "--all", "--not", "--remotes"])?;
    Ok((count != "0").then(|| format!("{} not pushed", counted(count, "commit"))))
}

/// The empty tree object, present in every repository.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// Runs git and returns its output.
fn git(folder: &Path, arguments: &[&str]) -> Result<String, GitError> {
    let mut command = Command::new("git");
    // git must run no program from the repository's configuration: no fsmonitor, no hook and no filter (git 2.41 or
    // newer reads attributes from the empty tree, which names no filter). The caller's GIT_* variables must not apply.
    command.env_clear().env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_ATTR_SOURCE", EMPTY_TREE).env("GIT_NO_LAZY_FETCH", "1");
    for name in ["PATH", "HOME"] {
        if let Some(value) = env_vars::path(name) {
            command.env(name, value);
        }
    }
    command.arg("-C").arg(folder).args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
    command.args(arguments);
    command::dies_with_this_thread(&mut command);
    let output = output_within(&mut command, LIMIT)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(GitError::Failed(stderr.lines().next().unwrap_or("unknown error").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
