//! Resolves references to secrets: reads the secrets that `config.yaml` names as `file:…` or `env:…`.

use super::document::{Problem, line_of};
use super::edit::set_keys;
use super::keys::KEYS;
use super::load::{Config, ConfigError, Loaded, SIZE_LIMIT, read_file};
use super::recipient::SecretReference;
use super::settings::SECRETS;
use crate::sys::env_vars;
use crate::sys::fs::files;
use serde_yaml::Value;
use std::path::Path;

/// Returns the text of `config.yaml` with secrets in place of references, so that it works on another machine.
pub fn self_contained(path: &Path) -> Result<Option<String>, ConfigError> {
    let Some(mut loaded) = read_file(path)? else { return Ok(None) };
    let changes = resolve(&mut loaded, path, env_vars::text)?;
    set_keys(&loaded.text, &changes).map(Some).map_err(|error| {
        let problems = vec![Problem { line: 0, message: error.to_string() }];
        ConfigError::Invalid { path: path.to_owned(), problems }
    })
}

/// Replaces `file:…` and `env:…` references by the secrets. Returns the replaced values.
pub(super) fn resolve(
    loaded: &mut Loaded,
    path: &Path,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let mut secrets = Vec::new();
    for (name, reference) in loaded.secret_references() {
        let secret = check_secret(loaded, path, name, &reference, &variable)?;
        loaded.mapping.insert(name.into(), secret.clone());
        secrets.push((name, secret));
    }
    loaded.config = Config::from(&loaded.mapping);
    Ok(secrets)
}

impl Loaded {
    /// Secrets that are stored elsewhere, with their references.
    pub fn secret_references(&self) -> Vec<(&'static str, SecretReference)> {
        let reference = |name: &str| self.mapping.get(name).and_then(Value::as_str).and_then(SecretReference::parse);
        SECRETS.iter().filter_map(|(name, _)| Some((*name, reference(name)?))).collect()
    }
}

/// Reads and checks the secret that a reference names; the error has the reference's line.
pub(super) fn check_secret(
    loaded: &Loaded,
    path: &Path,
    name: &str,
    reference: &SecretReference,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Value, ConfigError> {
    read_secret(name, reference, variable).map_err(|reason| ConfigError::Secret {
        path: path.to_owned(),
        line: line_of(&loaded.text, name).max(1),
        reason: format!("{name}: {reference}: {reason}"),
    })
}

/// Reads and checks the secret that a reference names.
fn read_secret(
    name: &str,
    reference: &SecretReference,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Value, String> {
    let text = match reference {
        SecretReference::File(file) => match files::read_text(file, SIZE_LIMIT) {
            Ok(Some(text)) => text,
            Ok(None) => return Err("there is no such file".to_owned()),
            Err(error) => return Err(error.to_string()),
        },
        SecretReference::Variable(name) => variable(name).ok_or("that variable is not set")?,
    };
    let (value, is_reference) = (Value::from(text.trim()), SecretReference::parse(text.trim()).is_some());
    let key = KEYS.iter().find(|key| key.name == name).filter(|_| !is_reference);
    let checked = key.map_or(Err("the secret itself"), |key| (key.check)(&value).map_err(|wrong| wrong.allowed));
    checked.map(|()| value).map_err(|allowed| format!("its value is not {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check_for_process, parse};
    use crate::sys::process::Environment;
    use std::fs;
    use std::path::PathBuf;

    struct ConfigFolder(tempfile::TempDir);

    impl ConfigFolder {
        fn new(files: &[(&str, &str)]) -> Self {
            let config_folder = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(name, text)| fs::write(config_folder.path(name), text).unwrap());
            config_folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn load(&self, variables: &[(&str, &str)]) -> Result<Loaded, String> {
            let variable = |name: &str| variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
            let path = self.path("config.yaml");
            let mut loaded = read_file(&path).unwrap().unwrap();
            resolve(&mut loaded, &path, variable)
                .map(|_| loaded)
                .map_err(|error| error.to_string().replace(&format!("{}/", self.0.path().display()), ""))
        }
    }

    #[test]
    fn resolves_secret_references() {
        let key = "ab".repeat(32);
        let config_folder =
            ConfigFolder::new(&[("config.yaml", "jwt_secret: env:JWT\n"), ("key", &format!("{key}\n"))]);
        assert_eq!(config_folder.load(&[("JWT", &key)]).unwrap().config.jwt_secret.as_deref(), Some(key.as_str()));
        let wrong = config_folder.load(&[("JWT", "swordfish")]).unwrap_err();
        assert!(wrong.contains("env:JWT: its value is not 64 hex") && !wrong.contains("swordfish"), "{wrong}");
        assert_eq!(
            config_folder.load(&[]).unwrap_err(),
            "config.yaml:1: jwt_secret: env:JWT: that variable is not set"
        );
        let file = config_folder.path("key");
        fs::write(config_folder.path("config.yaml"), format!("\nencryption_key: file:{}\n", file.display())).unwrap();
        assert_eq!(config_folder.load(&[]).unwrap().config.encryption_key, Some(key.clone()));
        // A backup contains the secret itself.
        let text = self_contained(&config_folder.path("config.yaml")).unwrap().unwrap();
        assert_eq!(parse(&text, &[]).unwrap().config.encryption_key, Some(key));
        fs::remove_file(file).unwrap();
        assert!(config_folder.load(&[]).unwrap_err().contains("there is no such file"));
        let unknown_environment = check_for_process(&config_folder.path("config.yaml"), None);
        assert!(unknown_environment.unwrap_err().to_string().contains("there is no such file"));
    }

    #[test]
    fn checks_secrets_in_another_process_environment() {
        let config_folder = ConfigFolder::new(&[("config.yaml", "jwt_secret: env:JWT\n")]);
        let path = config_folder.path("config.yaml");
        let environment = |key: &str| Environment::from([("JWT".to_owned(), key.to_owned())]);
        assert!(check_for_process(&path, Some(&environment(&"ab".repeat(32)))).is_ok());
        let missing = check_for_process(&path, Some(&environment(""))).unwrap_err().to_string();
        assert!(missing.contains("env:JWT: that variable is not set"), "{missing}");
        assert!(check_for_process(&path, None).is_ok(), "not checked");
    }
}
