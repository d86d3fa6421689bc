//! Decides whether a backup may be restored here, and adapts its configuration. Pure: a refusal leaves everything
//! unchanged.

use super::obstacles::Obstacle;
use crate::backup::format::manifest::{Entry, Manifest, WORKSPACE};
use leoflow_base::config::{self, BackupSettings, CopyPlace, DatastoreSetting, EditError, Problem, SecretReference};
use serde_yaml::{Mapping, Value};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Facts that the decision depends on.
#[derive(Debug, Clone)]
pub struct RestoreFacts<'a> {
    pub manifest: &'a Manifest,
    pub binary_schema: i64,
    /// True when the home contains an instance.
    pub is_set_up: bool,
    pub workspace: &'a Path,
    /// True when the folder for the workspace contains user data.
    pub workspace_in_use: bool,
    /// True when that folder is the current workspace of this home.
    pub workspace_is_ours: bool,
    pub force: bool,
    /// True when the home is inside the workspace, whose entries can then not be moved.
    pub home_inside: bool,
    /// A path that cannot be replaced or moved.
    pub obstacle: Option<Obstacle>,
    /// Number of copies of the database on disk during the restore.
    pub database_copies: u64,
    /// Free space of the home's file system, in bytes.
    pub free: u64,
    /// Free space of the workspace's file system if it differs, in bytes.
    pub workspace_free: Option<u64>,
    /// Space to leave free on the home's file system, for the write-ahead log and other processes, in bytes.
    pub reserve: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreRefusal {
    #[error("the backup has schema version {backup}, but this leoflow only knows up to {binary}")]
    NewerSchema { backup: i64, binary: i64 },
    #[error("this home already contains a Leoflow instance, which a restore replaces")]
    AlreadySetUp,
    #[error("{0} is not empty")]
    WorkspaceInUse(PathBuf),
    #[error("Leoflow's home is inside the workspace {0}, so the workspace cannot be replaced")]
    HomeInside(PathBuf),
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    #[error("{path} needs {needed} bytes of disk space, only {free} are free")]
    Space { path: PathBuf, needed: u64, free: u64 },
}

/// [`RestoreFacts::reserve`] of a restore that a user requests, in bytes.
pub const RESERVE: u64 = 128 * 1024 * 1024;

/// Decides whether the restore may proceed; `home` appears only in the error.
pub fn check(facts: &RestoreFacts<'_>, home: &Path) -> Result<(), RestoreRefusal> {
    let manifest = facts.manifest;
    if manifest.schema_version > facts.binary_schema {
        return Err(RestoreRefusal::NewerSchema { backup: manifest.schema_version, binary: facts.binary_schema });
    }
    if facts.is_set_up && !facts.force {
        return Err(RestoreRefusal::AlreadySetUp);
    }
    // No option allows a restore to replace a folder that is not this home's workspace.
    if facts.workspace_in_use && !(facts.workspace_is_ours && facts.force) {
        return Err(RestoreRefusal::WorkspaceInUse(facts.workspace.to_owned()));
    }
    if facts.home_inside {
        return Err(RestoreRefusal::HomeInside(facts.workspace.to_owned()));
    }
    if let Some(obstacle) = &facts.obstacle {
        return Err(RestoreRefusal::Obstacle(obstacle.clone()));
    }
    let workspace_bytes = workspace_size(manifest);
    let (home_bytes, workspace_need) = match facts.workspace_free {
        Some(free) => (manifest.total_size() - workspace_bytes, Some((workspace_bytes, free))),
        None => (manifest.total_size(), None),
    };
    let database = manifest.database.bytes.saturating_mul(facts.database_copies);
    let needed = home_bytes.saturating_add(database).saturating_add(facts.reserve);
    if needed > facts.free {
        return Err(RestoreRefusal::Space { path: home.to_owned(), needed, free: facts.free });
    }
    match workspace_need {
        Some((needed, free)) if needed > free => {
            Err(RestoreRefusal::Space { path: facts.workspace.to_owned(), needed, free })
        }
        _ => Ok(()),
    }
}

/// Disk space of the workspace's files in a backup, in bytes.
pub(crate) fn workspace_size(manifest: &Manifest) -> u64 {
    let is_inside = |entry: &&Entry| entry.path.strip_prefix(WORKSPACE).is_some_and(|rest| rest.starts_with('/'));
    manifest.entries.iter().filter(is_inside).map(Entry::stored).sum()
}

/// Settings that belong to a machine, not to an instance.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    pub workspace: &'a Path,
    /// `None` keeps the port of the backup.
    pub port: Option<u16>,
    pub python: Option<&'a Path>,
    /// Not taken from the backup, which must not decide who can reach this machine.
    pub host: Option<Ipv4Addr>,
    /// Not taken from the backup, which must not decide where this machine's data is.
    pub datastore: &'a DatastoreSetting,
    pub protected: Protected<'a>,
    /// Replaces the backup's `jwt_secret`, so that a copy of the backup is not enough to sign tokens for the restored
    /// instance. 64 hexadecimal digits.
    pub new_jwt_secret: String,
}

/// Source of the settings `backup.recipients`, `backup.passphrase`, `backup.identity`, `backup.copies` and `upgrade.from`.
/// If a restore took them from the backup, the backup's author could read later backups or install programs.
#[derive(Debug, Clone, Copy)]
pub enum Protected<'a> {
    /// Keeps the settings of this machine.
    Kept { backup: &'a BackupSettings, upgrade_from: Option<&'a str> },
    /// Uses the defaults, in a new home.
    Unset,
    /// Uses the settings of the backup, in a new home, because the user requested it.
    TakenOver,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigRefusal {
    #[error("its config.yaml is not valid: {}", .0.first().map(|problem| problem.message.as_str()).unwrap_or_default())]
    Invalid(Vec<Problem>),
    #[error("its config.yaml has no {0}")]
    Missing(&'static str),
    #[error("cannot adapt its config.yaml to this machine: {0}")]
    Edit(#[from] EditError),
}

/// Adapts a backup's configuration to this machine.
pub(crate) fn adapted_config(text: &str, machine: &Machine<'_>) -> Result<String, ConfigRefusal> {
    let text = config::with_new_names(text)?;
    let text = &match machine.protected {
        Protected::TakenOver => text,
        Protected::Kept { .. } | Protected::Unset => without_recipients(&text),
    };
    let config = config::parse(text, config::DEPRECATED).map_err(ConfigRefusal::Invalid)?.config;
    for (key, value) in [
        ("encryption_key", &config.encryption_key),
        ("jwt_secret", &config.jwt_secret),
        ("admin_password_hash", &config.admin_password_hash),
    ] {
        // A reference such as `file:PATH` is valid only on the machine that wrote it.
        if value.as_deref().and_then(SecretReference::parse).is_some() || value.is_none() {
            return Err(ConfigRefusal::Missing(key));
        }
    }
    let mut changes = vec![("workspace", machine.workspace.to_string_lossy().into_owned().into())];
    changes.push(("jwt_secret", machine.new_jwt_secret.as_str().into()));
    changes.extend(machine.port.map(|port| ("port", port.into())));
    let text = match machine.python {
        Some(python) => {
            changes.push(("python", python.to_string_lossy().into_owned().into()));
            text.to_owned()
        }
        None => config::remove_key(text, "python")?,
    };
    let text = match machine.host {
        Some(host) => {
            changes.push(("host", host.to_string().into()));
            text
        }
        None => config::remove_key(&text, "host")?,
    };
    let text = with_datastore(&config::set_keys(&text, &changes)?, machine.datastore)?;
    let (backup, upgrade_from) = match machine.protected {
        Protected::TakenOver => return Ok(text),
        Protected::Kept { backup, upgrade_from } => (backup.clone(), upgrade_from),
        Protected::Unset => (BackupSettings::default(), None),
    };
    let text = with_own_backups(text, &backup)?;
    with_values(text, "upgrade", [("from", upgrade_from.map(Value::from))])
}

/// The text without the public keys that backups are encrypted to. Only [`Protected::TakenOver`] uses those of a backup,
/// which may be SSH keys of an earlier version: this one refuses them.
pub(crate) fn without_recipients(text: &str) -> String {
    config::remove_subkey(text, "backup", "recipients").unwrap_or_else(|_| text.to_owned())
}

/// Names of the settings in a backup's configuration that [`Protected::Unset`] removes.
pub(crate) fn protected_settings(text: &str) -> Vec<&'static str> {
    let readable = without_recipients(text);
    let Ok(loaded) = config::parse(&readable, config::DEPRECATED) else { return Vec::new() };
    let is_set = |setting: &&config::Setting| match setting.name {
        "backup.recipients" => readable != text,
        _ => setting.value_in(&loaded).is_some(),
    };
    PROTECTED.into_iter().filter_map(config::Setting::find).filter(is_set).map(|setting| setting.name).collect()
}

pub(crate) const PROTECTED: [&str; 5] =
    ["backup.recipients", "backup.passphrase", "backup.identity", "backup.copies", "upgrade.from"];

/// Sets the datastore, or removes the key for the managed one, which is the default.
pub(crate) fn with_datastore(text: &str, datastore: &DatastoreSetting) -> Result<String, ConfigRefusal> {
    Ok(match datastore {
        DatastoreSetting::Managed => config::remove_key(text, "datastore")?,
        other => config::set_keys(text, &[("datastore", other.to_value())])?,
    })
}

/// Replaces the encryption settings and the copies of the backup by those of this machine.
fn with_own_backups(text: String, machine_backup: &BackupSettings) -> Result<String, ConfigRefusal> {
    let recipients: Vec<Value> =
        machine_backup.recipients.iter().map(|recipient| recipient.to_string().into()).collect();
    let copies: Vec<Value> = machine_backup.copies.iter().map(CopyPlace::to_value).collect();
    let values = [
        ("recipients", (!recipients.is_empty()).then(|| Value::Sequence(recipients))),
        ("passphrase", machine_backup.passphrase.as_ref().map(|reference| reference.to_string().into())),
        ("identity", machine_backup.identity.as_ref().map(|path| path.display().to_string().into())),
        ("copies", (!copies.is_empty()).then(|| Value::Sequence(copies))),
    ];
    with_values(text, "backup", values)
}

/// Sets or removes keys of the mapping `outer`.
fn with_values<const N: usize>(
    text: String,
    outer: &'static str,
    values: [(&'static str, Option<Value>); N],
) -> Result<String, ConfigRefusal> {
    let parsed: Option<Mapping> = serde_yaml::from_str(&text).ok();
    let mut mapping = parsed.and_then(|config| config.get(outer)?.as_mapping().cloned()).unwrap_or_default();
    let mut text = text;
    for (key, value) in values {
        text = config::remove_subkey(&text, outer, key)?;
        mapping.remove(key);
        mapping.extend(value.map(|value| (key.into(), value)));
    }
    if mapping.is_empty() { Ok(text) } else { Ok(config::set_keys(&text, &[(outer, Value::Mapping(mapping))])?) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::format::manifest::Content;
    use crate::backup::format::manifest::tests::{file, manifest};

    const MANAGED: DatastoreSetting = DatastoreSetting::Managed;

    fn facts(manifest: &Manifest) -> RestoreFacts<'_> {
        RestoreFacts {
            manifest,
            binary_schema: 3,
            is_set_up: true,
            workspace: Path::new("/w"),
            workspace_in_use: true,
            workspace_is_ours: true,
            force: true,
            home_inside: false,
            obstacle: None,
            database_copies: 1,
            free: u64::MAX,
            workspace_free: None,
            reserve: RESERVE,
        }
    }

    fn refused(facts: &RestoreFacts<'_>) -> Option<RestoreRefusal> {
        check(facts, Path::new("/h")).err()
    }

    #[test]
    fn force_replaces_only_our_own_workspace() {
        let manifest = manifest(vec![]);
        let base = facts(&manifest);
        assert!(refused(&base).is_none());
        assert!(matches!(refused(&RestoreFacts { force: false, ..base.clone() }), Some(RestoreRefusal::AlreadySetUp)));
        let stranger = RestoreFacts { workspace_is_ours: false, ..base.clone() };
        assert!(matches!(refused(&stranger), Some(RestoreRefusal::WorkspaceInUse(_))));
        let empty =
            RestoreFacts { is_set_up: false, workspace_in_use: false, workspace_is_ours: false, force: false, ..base };
        assert!(refused(&empty).is_none());
    }

    #[test]
    fn obstacles_are_refused() {
        let manifest = manifest(vec![]);
        let mounted = RestoreFacts { obstacle: Some(Obstacle::MountInWorkspace("/w/data".into())), ..facts(&manifest) };
        assert!(matches!(refused(&mounted), Some(RestoreRefusal::Obstacle(_))));
    }

    #[test]
    fn a_newer_schema_is_refused_even_with_force() {
        let manifest = manifest(vec![]);
        let older = RestoreFacts { binary_schema: 2, ..facts(&manifest) };
        assert!(matches!(refused(&older), Some(RestoreRefusal::NewerSchema { .. })));
    }

    #[test]
    fn requires_space_on_each_file_system() {
        let big = file("workspace/a", 10_000);
        let directory = crate::backup::format::manifest::Entry {
            path: "workspace".into(),
            content: Content::Directory { private: false },
        };
        let manifest = manifest(vec![directory, big]);
        let enough = 110 + 1000 + RESERVE;
        let fits = |free, workspace_free| refused(&RestoreFacts { free, workspace_free, ..facts(&manifest) }).is_none();
        assert!(fits(enough, Some(10_000)));
        assert!(!fits(enough, Some(9_999)));
        assert!(!fits(enough - 1, Some(10_000)));
        assert!(!fits(enough, None));
        assert!(fits(enough + 10_000, None));
        let mut sparse = manifest.clone();
        if let Content::File { stored, .. } = &mut sparse.entries.last_mut().unwrap().content {
            *stored = Some(4_096);
        }
        let fits = |free, workspace_free| refused(&RestoreFacts { free, workspace_free, ..facts(&sparse) }).is_none();
        assert!(fits(enough, Some(4_096)) && fits(enough + 4_096, None), "holes need no space");
        assert!(!fits(enough, Some(4_095)) && !fits(enough + 4_095, None));
    }

    #[test]
    fn adapted_config_keeps_secrets_and_takes_machine_settings() {
        let key = "ab".repeat(32);
        let text = format!(
            "# mine\nworkspace: /old\nport: 1\npython: /old/python\njwt_secret: '{key}'\nencryption_key: '{key}'\nhost: 0.0.0.0\n\
             admin_password_hash: '$argon2id$x'\nsession_epoch: 2\n"
        );
        let machine = Machine {
            workspace: Path::new("/new"),
            port: Some(9),
            python: None,
            host: None,
            datastore: &MANAGED,
            protected: Protected::Unset,
            new_jwt_secret: "cd".repeat(32),
        };
        let fitted = adapted_config(&text, &machine).unwrap();
        let config = config::parse(&fitted, &[]).unwrap().config;
        assert_eq!((config.jwt_secret, config.encryption_key), (Some("cd".repeat(32)), Some(key)));
        assert!(fitted.starts_with("# mine\nworkspace: /new\nport: 9\njwt_secret"), "{fitted}");
        assert!(
            !fitted.contains("host") && !fitted.contains("python") && fitted.contains("session_epoch: 2"),
            "{fitted}"
        );
        let other = Machine { python: Some(Path::new("/p")), ..machine.clone() };
        let fitted = adapted_config(&text, &other).unwrap();
        assert!(fitted.contains("python: /p"), "{fitted}");
        assert!(matches!(adapted_config("port: 1\n", &machine), Err(ConfigRefusal::Missing("encryption_key"))));
        assert!(matches!(adapted_config("port: [", &machine), Err(ConfigRefusal::Invalid(_))));
    }

    #[test]
    fn a_backup_does_not_change_this_machines_encryption() {
        let key = "ab".repeat(32);
        let text = |backup: &str| {
            format!("admin_password_hash: '$argon2id$x'\njwt_secret: '{key}'\nencryption_key: '{key}'\n{backup}")
        };
        let public = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        let settings = |text: &str| BackupSettings::read(&serde_yaml::from_str(text).unwrap()).unwrap();
        let machine_backup = settings(&format!("{{recipients: ['{public}'], identity: /k, keep: 3}}"));
        let machine = Machine {
            workspace: Path::new("/w"),
            port: None,
            python: None,
            host: None,
            datastore: &MANAGED,
            protected: Protected::Kept { backup: &machine_backup, upgrade_from: Some("/mine") },
            new_jwt_secret: key.clone(),
        };
        let fitted = |backup: &str, machine: &Machine<'_>| {
            let fitted = adapted_config(&text(backup), machine).unwrap();
            let loaded = config::parse(&fitted, &[]).unwrap();
            let from = config::Setting::find("upgrade.from").unwrap().value_in(&loaded);
            if !matches!(machine.protected, Protected::TakenOver) {
                assert_eq!(from.is_some(), matches!(machine.protected, Protected::Kept { .. }), "{fitted}");
                assert_ne!(from.as_deref(), Some("https://theirs.example"));
            }
            loaded.config.backup
        };
        for theirs in [
            "",
            "backup: {keep: 9, passphrase: 'env:THEIRS'}\n",
            "backup:\n  keep: 9\nupgrade:\n  from: 'https://theirs.example'\n  channel: rc\n",
        ] {
            let found = fitted(theirs, &machine);
            assert_eq!((&found.recipients, &found.passphrase), (&machine_backup.recipients, &None), "{theirs}");
            assert_eq!(
                (found.identity, found.keep),
                (machine_backup.identity.clone(), if theirs.is_empty() { 7 } else { 9 })
            );
        }
        let no_recipients = BackupSettings::default();
        let kept = Protected::Kept { backup: &no_recipients, upgrade_from: Some("/mine") };
        let plain = Machine { protected: kept, ..machine.clone() };
        assert!(fitted(&format!("backup: {{recipients: ['{public}']}}\n"), &plain).recipients.is_empty());
        // A backup of an older release, which encrypted to SSH keys too.
        let of_older = "backup:\n  recipients: ['ssh-ed25519 AAAA']\n  keep: 9\n";
        assert_eq!(fitted(of_older, &plain).keep, 9);
        assert_eq!(protected_settings(of_older), ["backup.recipients"]);
        let theirs = format!("backup: {{recipients: ['{public}']}}\nupgrade: {{from: 'https://theirs.example'}}\n");
        assert_eq!(protected_settings(&theirs), ["backup.recipients", "upgrade.from"]);
        let new = Machine { protected: Protected::Unset, ..machine.clone() };
        assert!(fitted(&theirs, &new).recipients.is_empty());
        let asked = Machine { protected: Protected::TakenOver, ..machine };
        assert_eq!(fitted(&theirs, &asked).recipients, machine_backup.recipients);
    }
}
