//! Named instances: each has a home beside `~/.leoflow` and a workspace beside `~/leoflow`.

use super::Home;
use super::home_error::HomeError;
use super::journal::{self, Operation};
use crate::sys::env_vars;
use std::path::PathBuf;

/// The name of the instance in `~/.leoflow`.
pub const DEFAULT: &str = "default";
/// Maximum length of an instance's name, in characters.
const MAX_NAME_LENGTH: usize = 40;
/// The folder of the default instance's home, in the user's home directory; with a name appended, that of another
/// instance.
const HOME: &str = ".leoflow";
/// The folder of the default workspace, in the user's home directory.
const WORKSPACE: &str = "leoflow";

/// The path of an instance's home, which need not exist.
pub fn root(name: &str) -> Result<PathBuf, HomeError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let is_valid = !name.is_empty()
        && name.len() <= MAX_NAME_LENGTH
        && name.chars().all(is_allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_valid {
        return Err(HomeError::InstanceName(name.to_owned()));
    }
    let folder = if name == DEFAULT { HOME.to_owned() } else { format!("{HOME}-{name}") };
    Ok(user_home()?.join(folder))
}

/// The name of a home's instance. `None` for a home with another folder name or outside the user's home directory.
pub fn name_of(home: &Home) -> Option<String> {
    let canonical = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let is_in_user_home = canonical(home.root().parent()?.to_owned()) == canonical(env_vars::user_home()?);
    let name = name_in(home.root().file_name()?.to_str()?)?;
    (is_in_user_home && root(name).is_ok()).then(|| name.to_owned())
}

/// The instance's name in the name of its home's folder.
pub(super) fn name_in(folder: &str) -> Option<&str> {
    match folder.strip_prefix(HOME)? {
        "" => Some(DEFAULT),
        suffix => suffix.strip_prefix('-'),
    }
}

/// True when the creation of an instance was interrupted or still runs: no server has run in it, so it has no data of
/// its own.
pub fn is_incomplete(home: &Home) -> bool {
    let is_setup = |entry: journal::Entry| entry.operation == Operation::Setup;
    let is_begun = home.creating().exists()
        || !home.receipt().exists() && journal::unfinished(home).is_ok_and(|entry| entry.is_some_and(is_setup));
    is_begun && !home.logs().join("server.log").exists()
}

/// The default workspace of a home.
pub fn default_workspace(home: &Home) -> Result<PathBuf, HomeError> {
    let folder = match name_of(home) {
        Some(name) if name != DEFAULT => format!("{WORKSPACE}-{name}"),
        _ => WORKSPACE.to_owned(),
    };
    Ok(user_home()?.join(folder))
}

fn user_home() -> Result<PathBuf, HomeError> {
    env_vars::user_home().ok_or_else(|| HomeError::NoUserHome(crate::sys::user::effective_uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_homes_and_cannot_escape_the_user_home() {
        for name in ["a", "staging", "team-1", "x_2", "default"] {
            assert!(root(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "..", "a/b", "A", "a b", "ä", ".x", &"x".repeat(41)] {
            assert!(matches!(root(name), Err(HomeError::InstanceName(_))), "{name:?}");
        }
        let user = env_vars::user_home().unwrap();
        assert_eq!(root("default").unwrap(), user.join(".leoflow"));
        let home = |root: PathBuf| Home { root };
        assert_eq!(name_of(&home(user.join(".leoflow-a"))).as_deref(), Some("a"));
        assert_eq!(name_of(&home(user.join(".leoflow"))).as_deref(), Some("default"));
        for other in
            [user.join(".leoflow-"), user.join(".leoflowed"), user.join("x/.leoflow-a"), "/srv/.leoflow".into()]
        {
            assert_eq!(name_of(&home(other.clone())), None, "{}", other.display());
        }
        assert_eq!(default_workspace(&home(user.join(".leoflow-a"))).unwrap(), user.join("leoflow-a"));
        assert_eq!(default_workspace(&home("/srv/leoflow".into())).unwrap(), user.join("leoflow"));
    }
}
