//! Whether a backup may be restored here, and what its configuration becomes. Pure: nothing has been
//! changed yet when this says no.

use super::manifest::{Entry, Manifest, WORKSPACE};
use super::obstacles::Obstacle;
use crate::config::{self, BackupSettings, DatastoreSetting, EditError, Problem, SecretPlace};
use serde_yaml::{Mapping, Value};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What the decision depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub manifest: &'a Manifest,
    pub binary_schema: i64,
    /// Whether there is an instance in this home already.
    pub is_set_up: bool,
    pub workspace: &'a Path,
    /// Whether the folder that becomes the workspace has something of the user's in it.
    pub workspace_in_use: bool,
    /// Whether that folder is the workspace already.
    pub workspace_is_ours: bool,
    pub force: bool,
    /// Whether the home is inside the workspace, which then cannot be moved away either.
    pub home_inside: bool,
    /// What cannot be replaced or moved.
    pub obstacle: Option<Obstacle>,
    /// How often the database is on this machine's disk meanwhile.
    pub database_copies: u64,
    /// Free bytes where the home is.
    pub free: u64,
    /// Free bytes where the workspace is, if that is another file system.
    pub workspace_free: Option<u64>,
    /// Bytes that stay free where the home is: for the write-ahead log and whatever else runs meanwhile.
    pub reserve: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the backup is of schema version {backup}, and this leoflow only knows up to {binary}")]
    NewerSchema { backup: i64, binary: i64 },
    #[error("there is a Leoflow in this home already, and a restore replaces it")]
    SetUp,
    #[error("{0} is not empty")]
    WorkspaceInUse(PathBuf),
    #[error("Leoflow's home is inside the workspace {0}, which then cannot be replaced")]
    HomeInside(PathBuf),
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    #[error("{needed} bytes are needed where {path} is, and {free} are free")]
    Space { path: PathBuf, needed: u64, free: u64 },
}

/// [`Facts::reserve`] of a restore that a user asks for.
pub const RESERVE: u64 = 128 * 1024 * 1024;

pub fn check(facts: &Facts<'_>, home: &Path) -> Result<(), Refusal> {
    let manifest = facts.manifest;
    if manifest.schema_version > facts.binary_schema {
        return Err(Refusal::NewerSchema { backup: manifest.schema_version, binary: facts.binary_schema });
    }
    if facts.is_set_up && !facts.force {
        return Err(Refusal::SetUp);
    }
    // A folder that is somebody else's is not replaced by any flag.
    if facts.workspace_in_use && !(facts.workspace_is_ours && facts.force) {
        return Err(Refusal::WorkspaceInUse(facts.workspace.to_owned()));
    }
    if facts.home_inside {
        return Err(Refusal::HomeInside(facts.workspace.to_owned()));
    }
    if let Some(obstacle) = &facts.obstacle {
        return Err(Refusal::Obstacle(obstacle.clone()));
    }
    let of_workspace = workspace_size(manifest);
    let (here, there) = match facts.workspace_free {
        Some(free) => (manifest.total_size() - of_workspace, Some((of_workspace, free))),
        None => (manifest.total_size(), None),
    };
    let database = manifest.database.bytes.saturating_mul(facts.database_copies);
    let needed = here.saturating_add(database).saturating_add(facts.reserve);
    if needed > facts.free {
        return Err(Refusal::Space { path: home.to_owned(), needed, free: facts.free });
    }
    match there {
        Some((needed, free)) if needed > free => Err(Refusal::Space { path: facts.workspace.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Bytes of the workspace's files in a backup.
pub fn workspace_size(manifest: &Manifest) -> u64 {
    manifest.entries.iter().filter(|entry| is_in_workspace(entry)).map(Entry::size).sum()
}

fn is_in_workspace(entry: &Entry) -> bool {
    entry.path.strip_prefix(WORKSPACE).is_some_and(|rest| rest.starts_with('/'))
}

/// What belongs to a machine and not to an instance.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    pub workspace: &'a Path,
    /// `None` leaves the one of the backup.
    pub port: Option<u16>,
    pub python: Option<&'a Path>,
    /// Whoever made the backup does not decide who may reach this machine.
    pub host: Option<Ipv4Addr>,
    /// Nor where its data is. The one under the home is not written down.
    pub datastore: &'a DatastoreSetting,
    /// Nor who may read the backups that are made here. `None` where nothing is set up yet.
    pub backup: Option<&'a BackupSettings>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigRefusal {
    #[error("the config.yaml in it is not valid: {}", .0.first().map(|problem| problem.message.as_str()).unwrap_or_default())]
    Invalid(Vec<Problem>),
    #[error("the config.yaml in it has no {0}")]
    Missing(&'static str),
    #[error("the config.yaml in it cannot be fitted to this machine: {0}")]
    Edit(#[from] EditError),
}

/// A backup's configuration as it comes into force on this machine.
pub fn fitted_config(text: &str, machine: &Machine<'_>) -> Result<String, ConfigRefusal> {
    let config = config::parse(text, config::DEPRECATED).map_err(ConfigRefusal::Invalid)?.config;
    for (key, value) in [
        ("encryption_key", &config.encryption_key),
        ("jwt_secret", &config.jwt_secret),
        ("admin_password_hash", &config.admin_password_hash),
    ] {
        // A place is one of the machine that it was written on.
        if value.as_deref().and_then(SecretPlace::parse).is_some() || value.is_none() {
            return Err(ConfigRefusal::Missing(key));
        }
    }
    let mut changes = vec![("workspace", machine.workspace.to_string_lossy().into_owned().into())];
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
    match machine.backup {
        Some(own) => with_own_encryption(text, own),
        None => Ok(text),
    }
}

/// The one under the home is not written down.
pub fn with_datastore(text: &str, datastore: &DatastoreSetting) -> Result<String, ConfigRefusal> {
    Ok(match datastore {
        DatastoreSetting::Managed => config::remove_key(text, "datastore")?,
        other => config::set_keys(text, &[("datastore", other.to_value())])?,
    })
}

fn with_own_encryption(text: String, own: &BackupSettings) -> Result<String, ConfigRefusal> {
    let recipients: Vec<Value> = own.recipients.iter().map(|one| one.to_string().into()).collect();
    let values = [
        ("recipients", (!recipients.is_empty()).then(|| Value::Sequence(recipients))),
        ("passphrase", own.passphrase.as_ref().map(|place| place.to_string().into())),
        ("identity", own.identity.as_ref().map(|path| path.display().to_string().into())),
    ];
    let parsed: Option<Mapping> = serde_yaml::from_str(&text).ok();
    let mut backup = parsed.and_then(|all| all.get("backup")?.as_mapping().cloned()).unwrap_or_default();
    let mut text = text;
    for (key, value) in values {
        text = config::remove_inner_key(&text, "backup", key)?;
        backup.remove(key);
        backup.extend(value.map(|value| (key.into(), value)));
    }
    if backup.is_empty() { Ok(text) } else { Ok(config::set_keys(&text, &[("backup", Value::Mapping(backup))])?) }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{file, manifest};
    use super::*;
    use crate::backup::manifest::Content;

    const MANAGED: DatastoreSetting = DatastoreSetting::Managed;

    fn facts(manifest: &Manifest) -> Facts<'_> {
        Facts {
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

    fn refused(facts: &Facts<'_>) -> Option<Refusal> {
        check(facts, Path::new("/h")).err()
    }

    #[test]
    fn force_replaces_our_own_and_nothing_else() {
        let manifest = manifest(vec![]);
        let base = facts(&manifest);
        assert!(refused(&base).is_none());
        assert!(matches!(refused(&Facts { force: false, ..base.clone() }), Some(Refusal::SetUp)));
        let stranger = Facts { workspace_is_ours: false, ..base.clone() };
        assert!(matches!(refused(&stranger), Some(Refusal::WorkspaceInUse(_))));
        let empty = Facts { is_set_up: false, workspace_in_use: false, workspace_is_ours: false, force: false, ..base };
        assert!(refused(&empty).is_none());
    }

    #[test]
    fn what_cannot_be_moved_aside_is_found_before() {
        let manifest = manifest(vec![]);
        let mounted = Facts { obstacle: Some(Obstacle::InWorkspace("/w/data".into())), ..facts(&manifest) };
        assert!(matches!(refused(&mounted), Some(Refusal::Obstacle(_))));
    }

    #[test]
    fn a_newer_schema_is_refused_also_with_force() {
        let manifest = manifest(vec![]);
        let older = Facts { binary_schema: 2, ..facts(&manifest) };
        assert!(matches!(refused(&older), Some(Refusal::NewerSchema { .. })));
    }

    #[test]
    fn room_is_asked_for_where_it_is_needed() {
        let big = file("workspace/a", 10_000);
        let directory =
            crate::backup::manifest::Entry { path: "workspace".into(), content: Content::Directory { private: false } };
        let manifest = manifest(vec![directory, big]);
        let enough = 110 + 1000 + RESERVE;
        let fits = |free, workspace_free| refused(&Facts { free, workspace_free, ..facts(&manifest) }).is_none();
        assert!(fits(enough, Some(10_000)));
        assert!(!fits(enough, Some(9_999)));
        assert!(!fits(enough - 1, Some(10_000)));
        assert!(!fits(enough, None));
        assert!(fits(enough + 10_000, None));
    }

    #[test]
    fn a_config_keeps_its_secrets_and_takes_this_machines_places() {
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
            backup: None,
        };
        let fitted = fitted_config(&text, &machine).unwrap();
        assert!(fitted.starts_with("# mine\nworkspace: /new\nport: 9\njwt_secret"), "{fitted}");
        assert!(
            !fitted.contains("host") && !fitted.contains("python") && fitted.contains("session_epoch: 2"),
            "{fitted}"
        );
        let other = Machine { python: Some(Path::new("/p")), ..machine.clone() };
        let fitted = fitted_config(&text, &other).unwrap();
        assert!(fitted.contains("python: /p"), "{fitted}");
        assert!(matches!(fitted_config("port: 1\n", &machine), Err(ConfigRefusal::Missing("encryption_key"))));
        assert!(matches!(fitted_config("port: [", &machine), Err(ConfigRefusal::Invalid(_))));
    }

    #[test]
    fn who_reads_the_backups_of_this_machine_is_not_decided_by_a_backup() {
        let key = "ab".repeat(32);
        let text = |backup: &str| {
            format!("admin_password_hash: '$argon2id$x'\njwt_secret: '{key}'\nencryption_key: '{key}'\n{backup}")
        };
        let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
        let settings = |text: &str| BackupSettings::read(&serde_yaml::from_str(text).unwrap()).unwrap();
        let own = settings(&format!("{{recipients: ['{public}'], identity: /k, keep: 3}}"));
        let machine = Machine {
            workspace: Path::new("/w"),
            port: None,
            python: None,
            host: None,
            datastore: &MANAGED,
            backup: Some(&own),
        };
        let fitted = |backup: &str, machine: &Machine<'_>| {
            let fitted = fitted_config(&text(backup), machine).unwrap();
            config::parse(&fitted, &[]).unwrap().config.backup
        };
        for theirs in ["", "backup: {keep: 9, passphrase: 'env:THEIRS'}\n", "backup:\n  keep: 9\n"] {
            let found = fitted(theirs, &machine);
            assert_eq!((&found.recipients, &found.passphrase), (&own.recipients, &None), "{theirs}");
            assert_eq!((found.identity, found.keep), (own.identity.clone(), if theirs.is_empty() { 7 } else { 9 }));
        }
        let nobody = BackupSettings::default();
        let plain = Machine { backup: Some(&nobody), ..machine.clone() };
        assert!(fitted(&format!("backup: {{recipients: ['{public}']}}\n"), &plain).recipients.is_empty());
        let new = Machine { backup: None, ..machine };
        assert_eq!(fitted(&format!("backup: {{recipients: ['{public}']}}\n"), &new).recipients, own.recipients);
    }
}
