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
