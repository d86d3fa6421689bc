//! Tests of the layers of settings, and of the secrets that they reference.

use super::layers::{apply_overrides, load_text};
use super::load::read_file;
use super::secret_references::resolve;
use super::{Cadence, Loaded, Setting, check_for_process, load_for_process, parse, self_contained, variable_of};
use crate::sys::process::Environment;
use std::fs;
use std::path::PathBuf;

/// A folder with configuration files.
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

    /// Loads the settings with secrets; the error omits the path of the folder.
    fn load(&self, variables: &[(&str, &str)]) -> Result<Loaded, String> {
        let variable = |name: &str| variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
        let path = self.path("config.yaml");
        apply_overrides(read_file(&path).unwrap().unwrap(), &path, variable)
            .and_then(|mut loaded| resolve(&mut loaded, &path, variable).map(|_| loaded))
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
    let key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    // Each is allowed alone, but not both together.
    let both = error_of("config-a.yaml", &format!("backup: {{recipients: [{key}]}}"), &[]);
    assert!(
        both.starts_with("config.yaml:3: backup.passphrase") && both.contains("together with recipients"),
        "{both}"
    );
    let both = error_of("x", "", &[("LEOFLOW_BACKUP_RECIPIENTS", key)]);
    assert!(both.contains("together with recipients"), "{both}");
    for (name, value) in [("LEOFLOW_PORT", "no"), ("LEOFLOW_PORT", "70000"), ("LEOFLOW_BACKUP_SCHEDULE", "x")] {
        let wrong = error_of("x", "", &[(name, value)]);
        assert!(wrong.starts_with(&format!("{name} is not ")), "{wrong}");
    }
}

#[test]
fn checks_a_text_together_with_its_overrides() {
    assert_eq!(Setting::find("workspace").and_then(variable_of), None);
    let key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
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
    assert_eq!(schedule(Some(&off)), Cadence::Off);
    assert_ne!(schedule(None), Cadence::Off);
}

#[test]
fn resolves_secret_references() {
    let key = "ab".repeat(32);
    let config_folder = ConfigFolder::new(&[("config.yaml", "jwt_secret: env:JWT\n"), ("key", &format!("{key}\n"))]);
    assert_eq!(config_folder.load(&[("JWT", &key)]).unwrap().config.jwt_secret.as_deref(), Some(key.as_str()));
    let wrong = config_folder.load(&[("JWT", "swordfish")]).unwrap_err();
    assert!(wrong.contains("env:JWT: its value is not 64 hex") && !wrong.contains("swordfish"), "{wrong}");
    assert_eq!(config_folder.load(&[]).unwrap_err(), "config.yaml:1: jwt_secret: env:JWT: that variable is not set");
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
