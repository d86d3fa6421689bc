//! Computes the effective settings: `config.yaml`, then `config-*.yaml` next to it in order of their names, then the
//! variables `LEOFLOW_…`. Later layers win; mappings are merged, other values replaced. The origin of each value is
//! recorded. Secrets, the workspace and the datastore are read from `config.yaml` only, because backups and restores
//! depend on them.

use super::document::{Problem, line_of, line_of_subkey, to_mapping};
use super::keys::{KEYS, Notice, ValueError};
use super::load::{Config, ConfigError, Loaded, check, describe, parse, read_file};
use super::origin::{Origin, Origins};
use super::recipient::SecretReference;
use super::secret_references::{check_secret, resolve};
use super::settings::{SECRETS, SETTINGS, Setting};
use super::{DEPRECATED, SIZE_LIMIT, SettingError};
use crate::build_info;
use crate::home::config_files;
use crate::sys::env_vars;
use crate::sys::fs::files;
use crate::sys::process::Environment;
use serde_yaml::{Mapping, Value};
use std::path::{Path, PathBuf};

/// Locations of an instance's data; backups and restores depend on them.
const LOCATION_SETTINGS: [&str; 3] = ["workspace", "datastore", "datastore.url"];

/// True when a key is allowed in `config.yaml` only.
fn is_config_yaml_only(name: &str) -> bool {
    LOCATION_SETTINGS.contains(&name) || SECRETS.iter().any(|(secret, _)| *secret == name)
}

/// Name of the environment variable for a setting.
pub fn variable_of(setting: &Setting) -> Option<String> {
    (!is_config_yaml_only(setting.name)).then(|| variable_named(setting.name))
}

/// Name of the environment variable for a key, which may be deprecated.
pub fn variable_named(setting: &str) -> String {
    format!("LEOFLOW_{}", setting.replace('.', "_").to_uppercase())
}

/// Loads the effective settings of this process; `Ok(None)` when there is no file at `path`. A secret that is stored
/// elsewhere stays a reference, since few callers need the secret itself.
pub fn load(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    read_file(path)?.map(|loaded| apply_overrides(loaded, path, env_vars::text)).transpose()
}

/// Loads the settings without this process's variables, which do not apply to an instance that another process runs.
pub fn load_files(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    load_for_process(path, None)
}

/// Loads the settings of a process whose environment variables are `variables`. `None` counts as no variables.
pub fn load_for_process(path: &Path, variables: Option<&Environment>) -> Result<Option<Loaded>, ConfigError> {
    read_file(path)?.map(|loaded| apply_overrides(loaded, path, variable_in(variables))).transpose()
}

/// Reads variables as `env_vars::text` does.
fn variable_in(variables: Option<&Environment>) -> impl Copy + Fn(&str) -> Option<String> {
    move |name| variables?.get(name).filter(|value| !value.is_empty()).cloned()
}

/// Loads the settings with the secrets resolved.
pub fn load_with_secrets(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    let Some(mut loaded) = load(path)? else { return Ok(None) };
    resolve(&mut loaded, path, env_vars::text)?;
    Ok(Some(loaded))
}

/// Checks that a process with the environment `variables` could read the settings and all their secrets. With `None`
/// the environment is unknown, and secrets in variables are not checked.
pub fn check_for_process(path: &Path, variables: Option<&Environment>) -> Result<(), ConfigError> {
    let variable = variable_in(variables);
    let Some(loaded) = read_file(path)? else { return Ok(()) };
    let loaded = apply_overrides(loaded, path, variable)?;
    for (name, reference) in loaded.secret_references() {
        if variables.is_some() || matches!(reference, SecretReference::File(_)) {
            check_secret(&loaded, path, name, &reference, variable)?;
        }
    }
    Ok(())
}

/// Loads the settings for a home that has no `config.yaml` yet.
pub fn load_first(path: &Path) -> Result<Loaded, ConfigError> {
    load_text(path, "")
}

/// Computes the settings that `text` would give in place of the file's content.
pub fn load_text(path: &Path, text: &str) -> Result<Loaded, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    apply_overrides(parse(text, DEPRECATED).map_err(invalid)?, path, env_vars::text)
}

/// Like [`load_text`], with the secrets resolved.
pub(super) fn load_text_with_secrets(path: &Path, text: &str) -> Result<Loaded, ConfigError> {
    let mut loaded = load_text(path, text)?;
    resolve(&mut loaded, path, env_vars::text)?;
    Ok(loaded)
}

/// Lists the files that override the one at `path`, from lowest to highest precedence.
fn override_files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.parent().unwrap_or(path);
    config_files::override_files(path).map_err(|source| ConfigError::Io { path: folder.to_owned(), source })
}

/// Lists the problems of each file on its own; if there are none, those of the combined settings.
pub fn problems_of_each(path: &Path) -> Result<Vec<(PathBuf, Problem)>, ConfigError> {
    let mut problems = Vec::new();
    let mut collect_problems = |read: Result<(), ConfigError>| match read {
        Ok(()) => Ok(()),
        Err(ConfigError::Invalid { path, problems: list }) => {
            problems.extend(list.into_iter().map(|problem| (path.clone(), problem)));
            Ok(())
        }
        Err(other) => Err(other),
    };
    collect_problems(read_file(path).map(drop))?;
    for file in override_files(path)? {
        collect_problems(read_override(&file, &mut Origins::new()).map(drop))?;
    }
    if problems.is_empty()
        && let Err(ConfigError::Invalid { path, problems: list }) = load(path)
    {
        problems.extend(list.into_iter().map(|problem| (path.clone(), problem)));
    }
    Ok(problems)
}

/// Applies the override files next to `path` and the variables, which `variable` reads.
pub(super) fn apply_overrides(
    mut loaded: Loaded,
    path: &Path,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigError> {
    let mut origins = Origins::new();
    record_origins(&mut origins, path, &loaded.text, &loaded.mapping);
    for path in override_files(path)? {
        let (mapping, warnings) = read_override(&path, &mut origins)?;
        merge(&mut loaded.mapping, mapping);
        loaded.override_warnings.push((path, warnings));
    }
    for setting in SETTINGS {
        let Some(name) = variable_of(setting) else { continue };
        let set = match variable(&name) {
            Some(text) => Some((name, text)),
            None => deprecated_variable(setting, &variable, &mut loaded, path)?,
        };
        let Some((name, text)) = set else { continue };
        let wrong = |allowed: String| ConfigError::EnvironmentVariable { name: name.clone(), allowed };
        let value = setting.value(&text).map_err(|error| match error {
            SettingError::Invalid(_, allowed) => wrong(allowed),
            other => wrong(other.to_string()),
        })?;
        set_value(&mut loaded.mapping, setting, value);
        origins.insert(setting.name.to_owned(), Origin::Variable(name));
    }
    check_together(&loaded.mapping, &origins)?;
    loaded.config = Config::from(&loaded.mapping);
    loaded.origins = origins;
    Ok(loaded)
}

/// Returns name and value of the variable with the setting's deprecated name, and adds a warning. An error if this
/// version no longer reads that name.
fn deprecated_variable(
    setting: &Setting,
    variable: impl Fn(&str) -> Option<String>,
    loaded: &mut Loaded,
    path: &Path,
) -> Result<Option<(String, String)>, ConfigError> {
    let Some(old) = DEPRECATED.iter().find(|old| old.replacement == setting.name) else { return Ok(None) };
    let (name, new_name) = (variable_named(old.name), variable_named(setting.name));
    let Some(text) = variable(&name) else { return Ok(None) };
    if let Notice::Removed(_) = old.notice(build_info::version()) {
        return Err(ConfigError::EnvironmentVariable { name, allowed: format!("read any more: use {new_name}") });
    }
    let message =
        format!("the variable {name} is deprecated, use {new_name}; it works until version {}", old.removed_in);
    loaded.override_warnings.push((path.to_owned(), vec![Problem { line: 1, message }]));
    Ok(Some((name, text)))
}

/// Reads an override file and records the origins of its values. Returns its values and warnings.
fn read_override(path: &Path, origins: &mut Origins) -> Result<(Mapping, Vec<Problem>), ConfigError> {
    let text = files::read_text(path, SIZE_LIMIT);
    // A file that was removed meanwhile counts as empty.
    let text = text.map_err(|source| ConfigError::Io { path: path.to_owned(), source })?.unwrap_or_default();
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    let mut mapping = to_mapping(&text).map_err(invalid)?;
    let (mut problems, warnings) = check(&mut mapping, &text, DEPRECATED);
    for name in mapping.keys().filter_map(Value::as_str).filter(|name| is_config_yaml_only(name)) {
        let message = format!("{name} is allowed in config.yaml only");
        problems.push(Problem { line: line_of(&text, name), message });
    }
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    record_origins(origins, path, &text, &mapping);
    Ok((mapping, warnings))
}

/// Records the line of each value in a file.
fn record_origins(origins: &mut Origins, path: &Path, text: &str, mapping: &Mapping) {
    for (key, value) in mapping {
        let Some(key) = key.as_str() else { continue };
        let mut add =
            |name: String, line: usize| origins.insert(name, Origin::File { path: path.to_owned(), line: line.max(1) });
        match value.as_mapping() {
            Some(nested) => nested.keys().filter_map(Value::as_str).for_each(|subkey| {
                add(format!("{key}.{subkey}"), line_of_subkey(text, key, subkey));
            }),
            None => drop(add(key.to_owned(), line_of(text, key))),
        }
    }
}

/// Merges `upper` into `lower`: mappings are merged, other values replaced.
fn merge(lower: &mut Mapping, upper: Mapping) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Mapping(lower)), Value::Mapping(upper)) => merge(lower, upper),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}

fn set_value(mapping: &mut Mapping, setting: &Setting, value: Value) {
    let entry = match setting.name.split_once('.') {
        Some((outer, subkey)) => [(outer.into(), Value::Mapping([(subkey.into(), value)].into_iter().collect()))],
        None => [(setting.name.into(), value)],
    };
    merge(mapping, entry.into_iter().collect());
}

/// Checks the combined settings, and values from variables. Each file on its own has passed its check.
fn check_together(mapping: &Mapping, origins: &Origins) -> Result<(), ConfigError> {
    for key in KEYS {
        let Some(value) = mapping.get(key.name) else { continue };
        let Err(wrong) = key.check(value) else { continue };
        let ValueError { subkey, allowed, .. } = wrong;
        let name = subkey.map_or_else(|| key.name.to_owned(), |subkey| format!("{}.{subkey}", key.name));
        let origin = origins.get(&name).or_else(|| {
            origins
                .iter()
                .rev()
                .find_map(|(other, origin)| other.starts_with(&format!("{}.", key.name)).then_some(origin))
        });
        return Err(match origin {
            Some(Origin::Variable(name)) => {
                ConfigError::EnvironmentVariable { name: name.clone(), allowed: allowed.to_owned() }
            }
            Some(Origin::File { path, line }) => {
                let problems = vec![Problem { line: *line, message: describe(key.name, value, wrong) }];
                ConfigError::Invalid { path: path.clone(), problems }
            }
            None => ConfigError::EnvironmentVariable { name, allowed: allowed.to_owned() },
        });
    }
    Ok(())
}
