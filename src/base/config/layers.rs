//! Computes the effective settings: `config.yaml`, then `config-*.yaml` next to it in order of their names, then the
//! variables `LEOFLOW_…`. Later layers win; mappings are merged, other values replaced. The origin of each value is
//! recorded. Secrets, the workspace and the datastore are read from `config.yaml` only, because backups and restores
//! depend on them.

use super::document::{Problem, line_of, line_of_subkey, to_mapping};
use super::keys::{KEYS, ValueError};
use super::load::{Config, ConfigError, Loaded, SIZE_LIMIT, check, describe, parse, read_file};
use super::origin::{Origin, Origins};
use super::recipient::SecretReference;
use super::secret_references::{check_secret, resolve};
use super::settings::{SECRETS, SETTINGS, Setting};
use super::{DEPRECATED, SettingError};
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
    let variable = |name: &str| variables?.get(name).filter(|value| !value.is_empty()).cloned();
    read_file(path)?.map(|loaded| apply_overrides(loaded, path, variable)).transpose()
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
    let variable = |name: &str| variables?.get(name).filter(|value| !value.is_empty()).cloned();
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
fn apply_overrides(
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
    if old.notice(build_info::version()).is_err() {
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
        let Err(wrong) = (key.check)(value) else { continue };
        let ValueError { subkey, allowed } = wrong;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
            apply_overrides(read_file(&path).unwrap().unwrap(), &path, variable)
                .map_err(|error| error.to_string().replace(&format!("{}/", self.0.path().display()), ""))
        }
    }

    #[test]
    fn later_layers_override_and_origins_are_recorded() {
        let config_folder = ConfigFolder::new(&[
            ("config.yaml", "port: 1\nhost: 0.0.0.0\nbackup:\n  keep: 2\n  max_age: 3d\n"),
            ("config-20.yaml", "port: 3\nbackup: {keep: 4}\n"),
            ("config-10.yaml", "# ours\nport: 2\nadmin_email: a@b\n"),
            ("config-.yaml", "port: ["),
            ("config.yaml.old", "port: ["),
        ]);
        let loaded = config_folder.load(&[("LEOFLOW_BACKUP_MAX_AGE", "off"), ("LEOFLOW_PYTHON", "/p")]).unwrap();
        assert_eq!((loaded.config.port, loaded.config.backup.keep, loaded.config.backup.max_age), (3, 4, None));
        assert_eq!((loaded.config.admin_email.as_str(), loaded.config.host.to_string()), ("a@b", "0.0.0.0".into()));
        let shown: Vec<String> = loaded.origins.iter().map(|(name, origin)| format!("{name} {origin}")).collect();
        assert_eq!(
            shown,
            [
                "admin_email config-10.yaml:3",
                "backup.keep config-20.yaml:2",
                "backup.max_age LEOFLOW_BACKUP_MAX_AGE",
                "host config.yaml:2",
                "port config-20.yaml:1",
                "python LEOFLOW_PYTHON",
            ]
        );
        assert!(loaded.text.starts_with("port: 1\n"));
    }

    #[test]
    fn errors_name_the_file_or_variable() {
        let error_of = |name: &str, text: &str, variables: &[(&str, &str)]| {
            ConfigFolder::new(&[("config.yaml", "port: 1\nbackup:\n  passphrase: file:/p\n"), (name, text)])
                .load(variables)
                .unwrap_err()
        };
        assert_eq!(
            error_of("config-a.yaml", "\nport: no\n", &[]),
            "config-a.yaml:2: port: \"no\" is not a port number from 1 to 65535"
        );
        assert!(error_of("config-a.yaml", "port: [", &[]).starts_with("config-a.yaml:"));
        let secret = error_of("config-a.yaml", "session_epoch: 3", &[]);
        assert_eq!(secret, "config-a.yaml:1: session_epoch is allowed in config.yaml only");
        let workspace = error_of("config-a.yaml", "workspace: /w", &[]);
        assert_eq!(workspace, "config-a.yaml:1: workspace is allowed in config.yaml only");
        let key = age::x25519::Identity::generate().to_public();
        // Each is allowed alone, but not both together.
        let both = error_of("config-a.yaml", &format!("backup: {{recipients: [{key}]}}"), &[]);
        assert!(
            both.starts_with("config.yaml:3: backup.passphrase") && both.contains("together with recipients"),
            "{both}"
        );
        let both = error_of("x", "", &[("LEOFLOW_BACKUP_RECIPIENTS", &key.to_string())]);
        assert!(both.contains("together with recipients"), "{both}");
        for (name, value) in [("LEOFLOW_PORT", "no"), ("LEOFLOW_PORT", "70000"), ("LEOFLOW_BACKUP_SCHEDULE", "x")] {
            let wrong = error_of("x", "", &[(name, value)]);
            assert!(wrong.starts_with(&format!("{name} is not ")), "{wrong}");
        }
    }

    #[test]
    fn checks_a_text_together_with_its_overrides() {
        assert_eq!(Setting::find("workspace").and_then(variable_of), None);
        let key = age::x25519::Identity::generate().to_public();
        let config_folder =
            ConfigFolder::new(&[("config.yaml", ""), ("config-a.yaml", &format!("backup: {{recipients: [{key}]}}"))]);
        let path = config_folder.path("config.yaml");
        assert!(load_text(&path, "port: 1\n").is_ok());
        assert!(load_text(&path, "backup: {passphrase: 'file:/p'}\n").is_err());
    }

    #[test]
    fn another_process_has_the_settings_of_its_own_variables() {
        let config_folder = ConfigFolder::new(&[("config.yaml", "backup: {schedule: '@daily'}\n")]);
        let load = |variables: Option<&Environment>| load_for_process(&config_folder.path("config.yaml"), variables);
        let schedule = |variables| load(variables).unwrap().unwrap().config.backup.schedule;
        let off = Environment::from([("LEOFLOW_BACKUP_SCHEDULE".to_owned(), "off".to_owned())]);
        assert_eq!(schedule(Some(&off)), crate::config::Cadence::Off);
        assert_ne!(schedule(None), crate::config::Cadence::Off);
    }
}
