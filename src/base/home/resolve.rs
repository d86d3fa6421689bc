//! Determines the home and checks its path.

use super::home_error::HomeError;
use super::{Home, instances, ownership};
use crate::sys::{env_vars, shell};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Resolves the home: `--home`, else `LEOFLOW_HOME`, else that of `LEOFLOW_INSTANCE`, else `~/.leoflow`. Creates
/// nothing.
pub fn resolve(flag: Option<&Path>) -> Result<Home, HomeError> {
    let root = root(flag)?;
    // Before anything is written.
    if plain_text(&root)?.contains('"') {
        return Err(HomeError::DoubleQuote(root));
    }
    if root.parent().is_none() || env_vars::user_home().as_deref() == Some(&root) {
        return Err(HomeError::TooWide(root));
    }
    if root.exists() && !root.is_dir() {
        return Err(HomeError::NotAFolder(root));
    }
    let home = Home { root };
    ownership::check(&home)?;
    Ok(home)
}

/// The absolute path of the home, unchecked.
fn root(flag: Option<&Path>) -> Result<PathBuf, HomeError> {
    match flag.map(Path::to_owned).or_else(|| env_vars::path("LEOFLOW_HOME")) {
        Some(path) => absolute(&path),
        None => instances::root(env_vars::text("LEOFLOW_INSTANCE").as_deref().unwrap_or(instances::DEFAULT)),
    }
}

/// The option, quoted for a shell, that makes a command act on the home `path`: `--instance NAME` for the home of a
/// named instance, otherwise `--home PATH`. `None` for the home that a command without the option acts on.
pub fn option_for(path: &Path) -> Option<String> {
    let home = Home { root: root(Some(path)).ok()? };
    if root(None).is_ok_and(|default| default == home.root) {
        return None;
    }
    Some(match instances::name_of(&home) {
        Some(name) => format!("--instance {name}"),
        None => format!("--home {}", shell::word(&home.root.to_string_lossy())),
    })
}

/// Lists the instances that are set up, the default one first, then by name. Skips folders that are not our homes.
pub fn all_instances() -> Vec<(String, Home)> {
    homes().into_iter().filter(|(_, home)| home.receipt().exists()).collect()
}

/// Lists the instances, and those whose creation was interrupted.
pub fn all_instances_and_incomplete() -> Vec<(String, Home)> {
    homes().into_iter().filter(|(_, home)| home.receipt().exists() || instances::is_incomplete(home)).collect()
}

/// The homes below the user's home directory, set up or not.
fn homes() -> Vec<(String, Home)> {
    let Some(folder) = env_vars::user_home() else { return Vec::new() };
    let home_of = |entry: fs::DirEntry| {
        let name = instances::name_in(entry.file_name().to_str()?)?.to_owned();
        let home = resolve(Some(&instances::root(&name).ok()?)).ok()?;
        Some((name, home))
    };
    let mut homes: Vec<(String, Home)> =
        fs::read_dir(folder).into_iter().flatten().flatten().filter_map(home_of).collect();
    homes.sort_by_key(|(name, _)| (name != instances::DEFAULT, name.clone()));
    homes
}

/// Makes the path of a workspace absolute and checks it. Creates nothing.
pub fn absolute_workspace(path: &Path) -> Result<PathBuf, HomeError> {
    let workspace = absolute(path)?;
    plain_text(&workspace)?;
    Ok(workspace)
}

/// The text of a path that configuration files support.
fn plain_text(path: &Path) -> Result<&str, HomeError> {
    match path.to_str() {
        None => Err(HomeError::NotUtf8(path.to_owned())),
        Some(text) if text.chars().any(char::is_control) => Err(HomeError::ControlCharacter(path.to_owned())),
        Some(text) => Ok(text),
    }
}

/// Resolves a path against the current folder and removes `.` and `..` lexically; links are not resolved.
fn absolute(path: &Path) -> Result<PathBuf, HomeError> {
    let mut result = PathBuf::new();
    for part in env_vars::absolute(path)?.components() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_home_is_resolved_against_the_current_folder() {
        let working_dir = env_vars::current_dir().unwrap();
        assert_eq!(resolve(Some(Path::new("a/../b/./c"))).unwrap().root(), working_dir.join("b/c"));
    }

    #[test]
    fn commands_for_another_home_name_it() {
        let option = |path: &str| option_for(Path::new(path));
        let user = env_vars::user_home().unwrap();
        assert_eq!(option("/srv/a b").as_deref(), Some("--home '/srv/a b'"));
        assert_eq!(option("/srv/./x/../leoflow").as_deref(), Some("--home /srv/leoflow"));
        assert_eq!(option_for(&user.join(".leoflow-a")).as_deref(), Some("--instance a"));
        assert_eq!(option_for(&root(None).unwrap()), None);
    }

    #[test]
    fn refuses_paths_that_postgres_does_not_support() {
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
