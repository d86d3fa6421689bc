//! Changes `config.yaml` on disk. Holds a lock, because a login that renews a password hash and a password reset may
//! run at the same time and must not overwrite each other.

use super::layers::{load_text, load_text_with_secrets};
use super::{
    ConfigError, DEPRECATED, EditError, Loaded, SecretReference, SettingError, load_with_secrets, parse, read_file,
    set_keys,
};
use crate::home::Home;
use crate::sys::fs::files;
use crate::sys::fs::flock::FileLock;
use serde_yaml::Value;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no {0}")]
    Missing(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Sets the keys that `decide` returns, given the current file; an empty list leaves the file untouched.
pub fn update(home: &Home, decide: impl FnOnce(&Loaded) -> Vec<(&'static str, Value)>) -> Result<(), UpdateError> {
    let _lock = lock(home)?;
    let loaded = read_file(&home.config())?.ok_or_else(|| UpdateError::Missing(home.config()))?;
    let changes = decide(&loaded);
    if changes.is_empty() {
        return Ok(());
    }
    write(home, &set_keys(&loaded.text, &changes)?)
}

/// Calls `action` while no other process changes the settings.
pub(crate) fn locked<T, E: From<UpdateError>>(home: &Home, action: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    if !home.config().exists() {
        // Checked first, because taking the lock creates a folder.
        return Err(UpdateError::Missing(home.config()).into());
    }
    let _lock = lock(home)?;
    action()
}

/// Replaces the file by the result of `change`.
pub fn rewrite(home: &Home, change: impl FnOnce(&str) -> Result<String, SettingError>) -> Result<(), UpdateError> {
    locked(home, || {
        let loaded = read_file(&home.config())?.ok_or_else(|| UpdateError::Missing(home.config()))?;
        let changed = change(&loaded.text)?;
        if changed == loaded.text {
            return Ok(());
        }
        // Checks the file together with its overrides.
        load_text(&home.config(), &changed)?;
        write(home, &changed)
    })
}

/// Replaces a secret in the file by a reference to the place that contains it. The secret must be readable there, and
/// an encryption key must be the present one, because another cannot decrypt what is stored.
pub fn set_secret_reference(home: &Home, name: &str, reference: &SecretReference) -> Result<(), UpdateError> {
    let path = home.config();
    if !path.exists() {
        return Err(UpdateError::Missing(path));
    }
    let _lock = lock(home)?;
    let current = load_with_secrets(&path)?.ok_or_else(|| UpdateError::Missing(path.clone()))?;
    let changed = set_keys(&current.text, &[(name, reference.to_string().into())])?;
    let new = load_text_with_secrets(&path, &changed)?;
    if name == "encryption_key" && new.config.encryption_key != current.config.encryption_key {
        let allowed = "where the present encryption key is".to_owned();
        return Err(SettingError::Invalid(reference.to_string(), allowed).into());
    }
    write(home, &changed)
}

/// Replaces the whole file in a restore or its undo. Sessions ended by a password reset stay ended: `session_epoch`
/// does not decrease while `jwt_secret` is the same.
pub fn exchange(home: &Home, text: &str) -> Result<(), UpdateError> {
    let _lock = lock(home)?;
    // Compares the secret itself, not its reference.
    let current = load_with_secrets(&home.config()).or_else(|_| read_file(&home.config())).ok().flatten();
    let current = current.map(|loaded| loaded.config);
    let text = match (current, parse(text, DEPRECATED)) {
        (Some(current), Ok(new))
            if current.jwt_secret == new.config.jwt_secret && current.session_epoch > new.config.session_epoch =>
        {
            set_keys(text, &[("session_epoch", current.session_epoch.into())])?
        }
        _ => text.to_owned(),
    };
    // An undo must not need a writable file when there is nothing to change.
    match read_file(&home.config()) {
        Ok(Some(current)) if current.text == text => Ok(()),
        _ => write(home, &text),
    }
}

/// Replaces or creates the whole file.
pub fn replace(home: &Home, text: &str) -> Result<(), UpdateError> {
    let _lock = lock(home)?;
    write(home, text)
}

fn write(home: &Home, text: &str) -> Result<(), UpdateError> {
    let path = home.config();
    // Keeps a symbolic link, for example into a dotfiles folder.
    let target = path.canonicalize().unwrap_or_else(|_| path.clone());
    files::write_atomic(&target, text.as_bytes(), 0o600).map_err(|source| UpdateError::Io { path, source })
}

/// Time limit for getting the lock; a change holds it for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

fn lock(home: &Home) -> Result<FileLock, UpdateError> {
    let path = home.config_lock();
    let io = |source| UpdateError::Io { path: path.clone(), source };
    files::create_private_dir(&home.run()).map_err(io)?;
    FileLock::open(&path).and_then(|file| FileLock::exclusive_within(file, LOCK_TIMEOUT)).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_does_not_revive_ended_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let config =
            |secret: &str, epoch: u64| format!("jwt_secret: '{}'\nsession_epoch: {epoch}\n", secret.repeat(32));
        let epoch = || read_file(&home.config()).unwrap().unwrap().config.session_epoch;
        replace(&home, &config("ab", 5)).unwrap();
        exchange(&home, &config("ab", 2)).unwrap();
        assert_eq!(epoch(), 5);
        exchange(&home, &config("ab", 9)).unwrap();
        assert_eq!(epoch(), 9);
        exchange(&home, &config("cd", 1)).unwrap();
        assert_eq!(epoch(), 1, "a different secret signed none of these sessions");
        // The same secret, by reference.
        let file = folder.path().join("jwt");
        std::fs::write(&file, "cd".repeat(32)).unwrap();
        replace(&home, &format!("jwt_secret: file:{}\nsession_epoch: 7\n", file.display())).unwrap();
        exchange(&home, &config("cd", 1)).unwrap();
        assert_eq!(epoch(), 7);
        replace(&home, &config("cd", 1)).unwrap();
        update(&home, |loaded| vec![("session_epoch", (loaded.config.session_epoch + 1).into())]).unwrap();
        assert_eq!(epoch(), 2);
    }

    #[test]
    fn unchanged_content_is_not_written_and_links_stay() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let target = folder.path().join("dotfile");
        std::fs::write(&target, "port: 1\n").unwrap();
        std::os::unix::fs::symlink(&target, home.config()).unwrap();
        let before = files::inode(&target);
        exchange(&home, "port: 1\n").unwrap();
        assert_eq!(files::inode(&target), before, "not rewritten with the same content");
        exchange(&home, "port: 2\n").unwrap();
        assert!(home.config().is_symlink());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "port: 2\n");
    }

    #[test]
    fn a_secret_is_replaced_by_its_place_only_if_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let (key, other) = ("ab".repeat(32), "cd".repeat(32));
        std::fs::write(home.config(), format!("# mine\njwt_secret: {key}\nencryption_key: {key}\n")).unwrap();
        let place = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            SecretReference::File(file)
        };
        let missing = SecretReference::File(folder.path().join("missing"));
        assert!(set_secret_reference(&home, "jwt_secret", &missing).is_err());
        assert!(set_secret_reference(&home, "jwt_secret", &place("short", "x")).is_err());
        set_secret_reference(&home, "jwt_secret", &place("other", &other)).unwrap();
        let error = set_secret_reference(&home, "encryption_key", &place("other", &other)).unwrap_err().to_string();
        assert!(error.contains("is not where the present encryption key is"), "{error}");
        set_secret_reference(&home, "encryption_key", &place("same", &key)).unwrap();
        let loaded = load_with_secrets(&home.config()).unwrap().unwrap();
        assert!(loaded.text.starts_with("# mine\njwt_secret: file:/"), "{}", loaded.text);
        assert_eq!(loaded.config.jwt_secret.as_deref(), Some(other.as_str()));
        assert_eq!(loaded.config.encryption_key.as_deref(), Some(key.as_str()));
    }
}
