//! What is in force: `config.yaml`, over it `config-*.yaml` beside it in the order of their names, over those the variables
//! `LEOFLOW_…`. Mappings are merged, everything else is replaced. Where each value comes from is told. The secrets, and the
//! workspace and the datastore, which backups and restores go by, stand in `config.yaml` alone.

use super::document::{Problem, line_of, line_of_inner, to_mapping};
use super::keys::{KEYS, Wrong};
use super::load::{Config, ConfigError, Loaded, SIZE_LIMIT, check, describe, parse, read_file};
use super::origin::{Origin, Origins};
use super::recipient::SecretPlace;
use super::settings::{SECRETS, SETTINGS, Setting};
use super::{DEPRECATED, SettingError, set_keys};
use crate::home::config_files;
use crate::sys::{env_vars, files};
use serde_yaml::{Mapping, Value};
use std::path::{Path, PathBuf};

/// What of an instance is where: backups and restores go by it.
const PLACES: [&str; 3] = ["workspace", "datastore", "datastore.url"];

/// Whether a key stands in `config.yaml` alone.
fn stands_alone(name: &str) -> bool {
    PLACES.contains(&name) || SECRETS.iter().any(|(secret, _)| *secret == name)
}

/// The variable that a setting can be given by.
pub fn variable_of(setting: &Setting) -> Option<String> {
    (!stands_alone(setting.name)).then(|| format!("LEOFLOW_{}", setting.name.replace('.', "_").to_uppercase()))
}

/// What is in force for this process; `Ok(None)` when there is no file at `path`. Where a secret is kept elsewhere, its place
/// is in its stead: few need the secret itself.
pub fn load(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    read_file(path)?.map(|loaded| over(loaded, path, env_vars::text)).transpose()
}

/// The same without the variables of this process, for a home that they are not for.
pub fn load_files(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    read_file(path)?.map(|loaded| over(loaded, path, |_| None)).transpose()
}

/// The same with the secrets themselves.
pub fn load_with_secrets(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    let Some(mut loaded) = load(path)? else { return Ok(None) };
    resolve(&mut loaded, path, env_vars::text)?;
    Ok(Some(loaded))
}

/// What a home that has no `config.yaml` yet begins with.
pub fn load_first(path: &Path) -> Result<Loaded, ConfigError> {
    load_text(path, "")
}

/// What a text would bring into force in the place of the file's.
pub fn load_text(path: &Path, text: &str) -> Result<Loaded, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    over(parse(text, DEPRECATED).map_err(invalid)?, path, env_vars::text)
}

/// The files that go over the one at `path`.
fn others(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.parent().unwrap_or(path);
    config_files::over(path).map_err(|source| ConfigError::Io { path: folder.to_owned(), source })
}

/// What is wrong with each file by itself; where nothing is, what they say together.
pub fn problems_of_each(path: &Path) -> Result<Vec<(PathBuf, Problem)>, ConfigError> {
    let mut found = Vec::new();
    let mut take = |read: Result<(), ConfigError>| match read {
        Ok(()) => Ok(()),
        Err(ConfigError::Invalid { path, problems }) => {
            found.extend(problems.into_iter().map(|problem| (path.clone(), problem)));
            Ok(())
        }
        Err(other) => Err(other),
    };
    take(read_file(path).map(drop))?;
    for other in others(path)? {
        take(read_other(&other, &mut Origins::new()).map(drop))?;
    }
    if found.is_empty()
        && let Err(ConfigError::Invalid { path, problems }) = load(path)
    {
        found.extend(problems.into_iter().map(|problem| (path.clone(), problem)));
    }
    Ok(found)
}

/// With what goes over it.
fn over(mut loaded: Loaded, path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Loaded, ConfigError> {
    let mut origins = Origins::new();
    note(&mut origins, path, &loaded.text, &loaded.mapping);
    for path in others(path)? {
        let (mapping, warnings) = read_other(&path, &mut origins)?;
        merge(&mut loaded.mapping, mapping);
        loaded.others.push((path, warnings));
    }
    for setting in SETTINGS {
        let Some(name) = variable_of(setting) else { continue };
        let Some(text) = variable(&name) else { continue };
        let wrong = |allowed: String| ConfigError::Variable { name: name.clone(), allowed };
        let value = setting.value(&text).map_err(|error| match error {
            SettingError::Invalid(_, allowed) => wrong(allowed),
            other => wrong(other.to_string()),
        })?;
        put(&mut loaded.mapping, setting, value);
        origins.insert(setting.name.to_owned(), Origin::Variable(name));
    }
    check_together(&loaded.mapping, &origins)?;
    loaded.config = Config::from(&loaded.mapping);
    loaded.origins = origins;
    Ok(loaded)
}

fn read_other(path: &Path, origins: &mut Origins) -> Result<(Mapping, Vec<Problem>), ConfigError> {
    let text = files::read_text(path, SIZE_LIMIT);
    // One that was removed just now says nothing.
    let text = text.map_err(|source| ConfigError::Io { path: path.to_owned(), source })?.unwrap_or_default();
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    let mut mapping = to_mapping(&text).map_err(invalid)?;
    let (mut problems, warnings) = check(&mut mapping, &text, DEPRECATED);
    for name in mapping.keys().filter_map(Value::as_str).filter(|name| stands_alone(name)) {
        let message = format!("{name} stands in config.yaml alone");
        problems.push(Problem { line: line_of(&text, name), message });
    }
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    note(origins, path, &text, &mapping);
    Ok((mapping, warnings))
}

fn note(origins: &mut Origins, path: &Path, text: &str, mapping: &Mapping) {
    for (key, value) in mapping {
        let Some(key) = key.as_str() else { continue };
        let mut add =
            |name: String, line: usize| origins.insert(name, Origin::File { path: path.to_owned(), line: line.max(1) });
        match value.as_mapping() {
            Some(inner) => inner.keys().filter_map(Value::as_str).for_each(|inner| {
                add(format!("{key}.{inner}"), line_of_inner(text, key, inner));
            }),
            None => drop(add(key.to_owned(), line_of(text, key))),
        }
    }
}

fn merge(into: &mut Mapping, over: Mapping) {
    for (key, value) in over {
        match (into.get_mut(&key), value) {
            (Some(Value::Mapping(below)), Value::Mapping(above)) => merge(below, above),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn put(mapping: &mut Mapping, setting: &Setting, value: Value) {
    let over = match setting.name.split_once('.') {
        Some((outer, inner)) => [(outer.into(), Value::Mapping([(inner.into(), value)].into_iter().collect()))],
        None => [(setting.name.into(), value)],
    };
    merge(mapping, over.into_iter().collect());
}

/// What each says by itself is allowed; this is about what they say together, and about variables.
fn check_together(mapping: &Mapping, origins: &Origins) -> Result<(), ConfigError> {
    for key in KEYS {
        let Some(value) = mapping.get(key.name) else { continue };
        let Err(wrong) = (key.check)(value) else { continue };
        let Wrong { inner, allowed } = wrong;
        let name = inner.map_or_else(|| key.name.to_owned(), |inner| format!("{}.{inner}", key.name));
        let of_name = origins.get(&name).or_else(|| {
            origins
                .iter()
                .rev()
                .find_map(|(other, origin)| other.starts_with(&format!("{}.", key.name)).then_some(origin))
        });
        return Err(match of_name {
            Some(Origin::Variable(name)) => ConfigError::Variable { name: name.clone(), allowed: allowed.to_owned() },
            Some(Origin::File { path, line }) => {
                let problems = vec![Problem { line: *line, message: describe(key.name, value, wrong) }];
                ConfigError::Invalid { path: path.clone(), problems }
            }
            None => ConfigError::Variable { name, allowed: allowed.to_owned() },
        });
    }
    Ok(())
}

/// The text of `config.yaml` with the secrets themselves where it says where they are: it is good on another machine, too.
pub fn self_contained(path: &Path) -> Result<Option<String>, ConfigError> {
    let Some(mut loaded) = read_file(path)? else { return Ok(None) };
    let changes = resolve(&mut loaded, path, env_vars::text)?;
    set_keys(&loaded.text, &changes).map(Some).map_err(|error| {
        let problems = vec![Problem { line: 0, message: error.to_string() }];
        ConfigError::Invalid { path: path.to_owned(), problems }
    })
}

/// Puts what is at `file:…` and `env:…` in the place of those words. Returns what was put there.
fn resolve(
    loaded: &mut Loaded,
    path: &Path,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let mut found = Vec::new();
    for (name, place) in loaded.places() {
        let secret = secret_at(name, &place, &variable).map_err(|reason| ConfigError::Secret {
            path: path.to_owned(),
            line: line_of(&loaded.text, name).max(1),
            what: format!("{name}: {place}: {reason}"),
        })?;
        loaded.mapping.insert(name.into(), secret.clone());
        found.push((name, secret));
    }
    loaded.config = Config::from(&loaded.mapping);
    Ok(found)
}

impl Loaded {
    /// The secrets that are kept elsewhere, and where.
    pub fn places(&self) -> Vec<(&'static str, SecretPlace)> {
        let place = |name: &str| self.mapping.get(name).and_then(Value::as_str).and_then(SecretPlace::parse);
        SECRETS.iter().filter_map(|(name, _)| Some((*name, place(name)?))).collect()
    }
}

fn secret_at(name: &str, place: &SecretPlace, variable: impl Fn(&str) -> Option<String>) -> Result<Value, String> {
    let text = match place {
        SecretPlace::File(file) => match files::read_text(file, SIZE_LIMIT) {
            Ok(Some(text)) => text,
            Ok(None) => return Err("there is no such file".to_owned()),
            Err(error) => return Err(error.to_string()),
        },
        SecretPlace::Variable(name) => variable(name).ok_or("that variable is not set")?,
    };
    let (value, is_place) = (Value::from(text.trim()), SecretPlace::parse(text.trim()).is_some());
    let key = KEYS.iter().find(|key| key.name == name).filter(|_| !is_place);
    let checked = key.map_or(Err("the secret itself"), |key| (key.check)(&value).map_err(|wrong| wrong.allowed));
    checked.map(|()| value).map_err(|allowed| format!("what is there is not {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Play(tempfile::TempDir);

    impl Play {
        fn new(files: &[(&str, &str)]) -> Self {
            let play = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(name, text)| fs::write(play.path(name), text).unwrap());
            play
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn load(&self, variables: &[(&str, &str)]) -> Result<Loaded, String> {
            let variable = |name: &str| variables.iter().find(|one| one.0 == name).map(|one| one.1.to_owned());
            let path = self.path("config.yaml");
            over(read_file(&path).unwrap().unwrap(), &path, variable)
                .and_then(|mut loaded| resolve(&mut loaded, &path, variable).map(|_| loaded))
                .map_err(|error| error.to_string().replace(&format!("{}/", self.0.path().display()), ""))
        }
    }

    #[test]
    fn later_files_and_variables_go_over_earlier_ones_and_each_value_has_its_place() {
        let play = Play::new(&[
            ("config.yaml", "port: 1\nhost: 0.0.0.0\nbackup:\n  keep: 2\n  max_age: 3d\n"),
            ("config-20.yaml", "port: 3\nbackup: {keep: 4}\n"),
            ("config-10.yaml", "# ours\nport: 2\nadmin_email: a@b\n"),
            ("config-.yaml", "port: ["),
            ("config.yaml.old", "port: ["),
        ]);
        let loaded = play.load(&[("LEOFLOW_BACKUP_MAX_AGE", "off"), ("LEOFLOW_PYTHON", "/p")]).unwrap();
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
    fn what_is_wrong_is_told_of_the_file_or_the_variable_that_says_it() {
        let of = |name: &str, text: &str, variables: &[(&str, &str)]| {
            Play::new(&[("config.yaml", "port: 1\nbackup:\n  passphrase: file:/p\n"), (name, text)])
                .load(variables)
                .unwrap_err()
        };
        assert_eq!(
            of("config-a.yaml", "\nport: no\n", &[]),
            "config-a.yaml:2: port: \"no\" is not a port number from 1 to 65535"
        );
        assert!(of("config-a.yaml", "port: [", &[]).starts_with("config-a.yaml:"));
        let secret = of("config-a.yaml", "session_epoch: 3", &[]);
        assert_eq!(secret, "config-a.yaml:1: session_epoch stands in config.yaml alone");
        let workspace = of("config-a.yaml", "workspace: /w", &[]);
        assert_eq!(workspace, "config-a.yaml:1: workspace stands in config.yaml alone");
        let key = age::x25519::Identity::generate().to_public();
        // Each is allowed, and both together are not.
        let both = of("config-a.yaml", &format!("backup: {{recipients: [{key}]}}"), &[]);
        assert!(both.starts_with("config.yaml:3: backup.passphrase") && both.contains("beside recipients"), "{both}");
        let both = of("x", "", &[("LEOFLOW_BACKUP_RECIPIENTS", &key.to_string())]);
        assert!(both.contains("beside recipients"), "{both}");
        for (name, value) in [("LEOFLOW_PORT", "no"), ("LEOFLOW_PORT", "70000"), ("LEOFLOW_BACKUP_SCHEDULE", "x")] {
            let wrong = of("x", "", &[(name, value)]);
            assert!(wrong.starts_with(&format!("{name} is not ")), "{wrong}");
        }
    }

    #[test]
    fn the_workspace_is_no_variables_and_a_text_is_tried_with_what_goes_over_it() {
        assert_eq!(Setting::find("workspace").and_then(variable_of), None);
        let key = age::x25519::Identity::generate().to_public();
        let play = Play::new(&[("config.yaml", ""), ("config-a.yaml", &format!("backup: {{recipients: [{key}]}}"))]);
        let path = play.path("config.yaml");
        assert!(load_text(&path, "port: 1\n").is_ok());
        assert!(load_text(&path, "backup: {passphrase: 'file:/p'}\n").is_err());
    }

    #[test]
    fn a_secret_may_be_kept_elsewhere() {
        let key = "ab".repeat(32);
        let play = Play::new(&[("config.yaml", "jwt_secret: env:JWT\n"), ("key", &format!("{key}\n"))]);
        assert_eq!(play.load(&[("JWT", &key)]).unwrap().config.jwt_secret.as_deref(), Some(key.as_str()));
        let wrong = play.load(&[("JWT", "swordfish")]).unwrap_err();
        assert!(wrong.contains("env:JWT: what is there is not 64 hex") && !wrong.contains("swordfish"), "{wrong}");
        assert_eq!(play.load(&[]).unwrap_err(), "config.yaml:1: jwt_secret: env:JWT: that variable is not set");
        let file = play.path("key");
        fs::write(play.path("config.yaml"), format!("\nencryption_key: file:{}\n", file.display())).unwrap();
        assert_eq!(play.load(&[]).unwrap().config.encryption_key, Some(key.clone()));
        // A backup has the secret itself.
        let text = self_contained(&play.path("config.yaml")).unwrap().unwrap();
        assert_eq!(parse(&text, &[]).unwrap().config.encryption_key, Some(key));
        fs::remove_file(file).unwrap();
        assert!(play.load(&[]).unwrap_err().contains("there is no such file"));
    }
}
