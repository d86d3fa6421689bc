//! Version control with work in it that exists nowhere else: not committed, or committed and not pushed.

use crate::sys::command::{self, output_within};
use crate::sys::env_vars;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub path: PathBuf,
    /// What is only there, or why it is not known.
    pub why: String,
}

/// The kinds that are found; only git can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Git,
    BareGit,
    Other(&'static str),
}

/// Longer than the status of a large repository takes.
const LIMIT: Duration = Duration::from_secs(60);

/// `None` when everything in it is elsewhere too.
pub fn unsaved(path: &Path, kind: Kind) -> Option<Repository> {
    let repository = |why: String| Some(Repository { path: path.to_owned(), why });
    let why = match kind {
        Kind::Other(name) => return repository(format!("it is a {name} repository, which cannot be asked")),
        Kind::Git => uncommitted(path, &[]).transpose().or_else(|| unpushed(path).transpose()),
        Kind::BareGit => unpushed(path).transpose(),
    };
    match why {
        None => None,
        Some(Ok(why)) => repository(why),
        Some(Err(error)) => repository(format!("git cannot be asked: {error}")),
    }
}

/// For a folder inside a larger working tree: what of it is not committed there.
pub fn uncommitted_inside(folder: &Path) -> Option<Repository> {
    if !folder.ancestors().skip(1).any(|above| above.join(".git").exists()) {
        return None;
    }
    let why = match uncommitted(folder, &["--", "."]) {
        Ok(why) => why?,
        Err(error) => format!("git cannot be asked: {error}"),
    };
    Some(Repository { path: folder.to_owned(), why })
}

fn uncommitted(path: &Path, more: &[&str]) -> Result<Option<String>, String> {
    let text = git(path, &[&["status", "--porcelain", "--untracked-files=all"], more].concat())?;
    let count = text.lines().count();
    Ok((count > 0).then(|| format!("{count} file(s) not committed")))
}

/// Commits that no remote branch has, stashes included.
fn unpushed(path: &Path) -> Result<Option<String>, String> {
    let count = git(path, &["rev-list", "--count", "--all", "--not", "--remotes"])?;
    Ok((count != "0").then(|| format!("{count} commit(s) not pushed")))
}

/// The object that every repository has.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    // No program that a repository's settings name is run: neither monitor nor hook, nor (with git 2.41 or
    // newer, which then takes its attributes from the empty tree) a filter. None of the caller's GIT_* gets in.
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
    let output = output_within(&mut command, LIMIT).map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it failed").to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
