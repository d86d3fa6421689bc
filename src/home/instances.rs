//! Instances by name: each is a home beside the usual one, with a workspace beside the usual one.

use super::Home;
use super::home_error::HomeError;
use crate::sys::env_vars;
use std::path::PathBuf;

/// What `~/.leoflow` is called among the others.
pub const DEFAULT: &str = "default";
const LONGEST: usize = 40;
pub(super) const HOME: &str = ".leoflow";
const WORKSPACE: &str = "leoflow";

/// Where the home of an instance is, whether it is there or not.
pub fn root(name: &str) -> Result<PathBuf, HomeError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let is_name = !name.is_empty()
        && name.len() <= LONGEST
        && name.chars().all(fits)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_name {
        return Err(HomeError::InstanceName(name.to_owned()));
    }
    let folder = if name == DEFAULT { HOME.to_owned() } else { format!("{HOME}-{name}") };
    Ok(user_home()?.join(folder))
}

/// The name of the instance that a home is of. `None` for a home elsewhere.
pub fn name_of(home: &Home) -> Option<String> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let beside = real(home.root().parent()?.to_owned()) == real(env_vars::user_home()?);
    let folder = home.root().file_name()?.to_str()?;
    let name = match folder.strip_prefix(HOME)? {
        "" => DEFAULT,
        rest => rest.strip_prefix('-')?,
    };
    (beside && root(name).is_ok()).then(|| name.to_owned())
}

/// Where a home has its projects when nothing else is said.
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
    fn a_name_is_part_of_a_path_and_never_a_way_out_of_it() {
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
