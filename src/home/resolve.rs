//! Which home, and whether a home can be there at all.

use super::home_error::HomeError;
use super::{Home, belongings, instances};
use crate::sys::env_vars;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The home by `--home`, else `LEOFLOW_HOME`, else that of `LEOFLOW_INSTANCE`, else `~/.leoflow`. Creates nothing.
pub fn resolve(flag: Option<&Path>) -> Result<Home, HomeError> {
    let root = match flag.map(Path::to_owned).or_else(|| env_vars::path("LEOFLOW_HOME")) {
        Some(given) => absolute(&given)?,
        None => instances::root(env_vars::text("LEOFLOW_INSTANCE").as_deref().unwrap_or(instances::DEFAULT))?,
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

/// Those that are set up, the usual one first, by name. What is another user's, or no home, is none.
pub fn all_instances() -> Vec<(String, Home)> {
    let Some(folder) = env_vars::user_home() else { return Vec::new() };
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut found: Vec<(String, Home)> = names
        .filter_map(|name| match name.to_str()?.strip_prefix(instances::HOME)? {
            "" => Some(instances::DEFAULT.to_owned()),
            rest => rest.strip_prefix('-').map(str::to_owned),
        })
        .filter_map(|name| {
            let home = resolve(Some(&instances::root(&name).ok()?)).ok()?;
            home.receipt().exists().then_some((name, home))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| (one != instances::DEFAULT, one).cmp(&(other != instances::DEFAULT, other)));
    found
}

/// A workspace that somebody has named. Creates nothing.
pub fn absolute_workspace(given: &Path) -> Result<PathBuf, HomeError> {
    let workspace = absolute(given)?;
    match workspace.to_str() {
        None => Err(HomeError::NotUtf8(workspace)),
        Some(text) if text.chars().any(char::is_control) => Err(HomeError::ControlCharacter(workspace)),
        Some(_) => Ok(workspace),
    }
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
