//! Resolves references to secrets: reads the secrets that `config.yaml` names as `file:…` or `env:…`.

use super::document::{Problem, line_of};
use super::edit::set_keys;
use super::keys::KEYS;
use super::load::{Config, ConfigError, Loaded, read_file};
use super::recipient::{SecretError, SecretReference, UnreadableSecret};
use super::settings::SECRETS;
use crate::sys::env_vars;
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
    name: &'static str,
    reference: &SecretReference,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Value, ConfigError> {
    let checked = reference.read(variable).and_then(|text| {
        let text = text.trim();
        let is_reference = SecretReference::parse(text).is_some();
        let key = KEYS.iter().find(|key| key.name == name).filter(|_| !is_reference);
        let key = key.ok_or(SecretError::Value("the secret itself"))?;
        let value = Value::from(text);
        key.check(&value).map_err(|wrong| SecretError::Value(wrong.allowed))?;
        Ok(value)
    });
    checked.map_err(|source| ConfigError::Secret {
        path: path.to_owned(),
        line: line_of(&loaded.text, name).max(1),
        source: UnreadableSecret { name, reference: reference.clone(), source },
    })
}
