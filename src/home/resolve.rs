//! Which home, and whether a home can be there at all.

use super::{Home, belongings};
use crate::sys::env_vars;
use std::path::{Component, Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("there is no home directory: HOME is not set and user {0} has no passwd entry")]
    NoUserHome(u32),
    #[error("the path {0:?} holds a line break or another control character")]
    ControlCharacter(PathBuf),
    #[error("the path {0} holds a double quote, which PostgreSQL's initdb cannot handle")]
    DoubleQuote(PathBuf),
    #[error("the path {0} is not UTF-8 text")]
    NotUtf8(PathBuf),
    #[error("{0} is a file, not a folder")]
    NotAFolder(PathBuf),
    #[error("the current folder is gone: {0}")]
    NoCurrentFolder(std::io::Error),
    #[error("the home {home} belongs to {owner}, and this would leave files there that {owner} cannot change")]
    OfAnotherUser { home: PathBuf, owner: String, uid: u32 },
    #[error("{home} is in use for something else ({example}), so it cannot be Leoflow's home")]
    InUse { home: PathBuf, example: PathBuf },
    #[error("the workspace cannot be {path}: that is {why}")]
    NoWorkspace { path: PathBuf, why: &'static str },
    #[error("the home cannot be / or your own home directory ({0})")]
    TooWide(PathBuf),
}

/// The home by `--home`, else `LEOFLOW_HOME`, else `~/.leoflow`. Creates nothing.
pub fn resolve(flag: Option<&Path>) -> Result<Home, HomeError> {
    let root = match flag.map(Path::to_owned).or_else(|| env_vars::path("LEOFLOW_HOME")) {
        Some(given) => absolute(&given)?,
        None => user_home()?.join(".leoflow"),
    };
    check(&root)?;
    if root.parent().is_none() || env_vars::user_home().as_deref() == Some(&root) {
        return Err(HomeError::TooWide(root));
    }
    if root.exists() && !root.is_dir() {
        return Err(HomeError::NotAFolder(root));
    }
    let home = Home { root };
    belongings::check(&home)?;
    Ok(home)
}

/// The workspace by flag, else `~/leoflow`. Creates nothing.
pub fn resolve_workspace(flag: Option<&Path>) -> Result<PathBuf, HomeError> {
    let workspace = match flag {
        Some(given) => absolute(given)?,
        None => user_home()?.join("leoflow"),
    };
    match workspace.to_str() {
        None => Err(HomeError::NotUtf8(workspace)),
        Some(text) if text.chars().any(char::is_control) => Err(HomeError::ControlCharacter(workspace)),
        Some(_) => Ok(workspace),
    }
}

fn user_home() -> Result<PathBuf, HomeError> {
    env_vars::user_home().ok_or_else(|| HomeError::NoUserHome(crate::sys::user::effective_uid()))
}

/// Against the current folder, with `.` and `..` taken out by name: a link stays what it is.
fn absolute(path: &Path) -> Result<PathBuf, HomeError> {
    let mut result = if path.is_absolute() {
        PathBuf::new()
    } else {
        env_vars::current_dir().map_err(HomeError::NoCurrentFolder)?
    };
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    Ok(result)
}

/// What `initdb` and configuration files cannot hold is refused before anything is written.
fn check(root: &Path) -> Result<(), HomeError> {
    let Some(text) = root.to_str() else { return Err(HomeError::NotUtf8(root.to_owned())) };
    if text.chars().any(char::is_control) {
        return Err(HomeError::ControlCharacter(root.to_owned()));
    }
    if text.contains('"') {
        return Err(HomeError::DoubleQuote(root.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_home_is_taken_from_the_current_folder() {
        let here = env_vars::current_dir().unwrap();
        assert_eq!(resolve(Some(Path::new("a/../b/./c"))).unwrap().root(), here.join("b/c"));
    }

    #[test]
    fn refuses_paths_that_postgres_cannot_live_under() {
        for (path, allowed) in [
            ("/tmp/with blank", true),
            ("/tmp/it's $HOME", true),
            ("/tmp/ünïcödé", true),
            ("/tmp/new\nline", false),
            ("/tmp/quo\"te", false),
            ("/", false),
        ] {
            assert_eq!(resolve(Some(Path::new(path))).is_ok(), allowed, "{path:?}");
        }
    }
}
