//! The `backup` key: schedules for backups and test restores, retention and encryption.

use super::cadence::{Cadence, duration};
use super::keys::{ValueError, count};
use super::{CopyPlace, Recipient, SecretReference, copies};
use serde_yaml::Value;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSettings {
    /// Schedule of automatic backups.
    pub schedule: Cadence,
    /// Schedule of automatic test restores of the newest backup.
    pub verify: Cadence,
    /// Number of automatic backups to keep, newest first.
    pub keep: u64,
    /// Maximum age of an automatic backup; `None` is no limit.
    pub max_age: Option<Duration>,
    /// Maximum total size of automatic backups, in bytes.
    pub max_bytes: u64,
    /// Maximum size of task logs in a backup, in bytes, newest first.
    pub task_logs_bytes: u64,
    /// Public keys that backups are encrypted to. With neither these nor a passphrase, backups are not encrypted.
    pub recipients: Vec<Recipient>,
    /// Passphrase for encryption, as an alternative to `recipients`.
    pub passphrase: Option<SecretReference>,
    /// File of a private key on this machine, needed to test-restore backups here that are encrypted to `recipients`.
    pub identity: Option<PathBuf>,
    /// Places that backups are copied to.
    pub copies: Vec<CopyPlace>,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self {
            schedule: Cadence::Cron("@daily".to_owned()),
            verify: Cadence::Cron("@weekly".to_owned()),
            keep: 7,
            max_age: None,
            max_bytes: 5 * GIB,
            task_logs_bytes: GIB / 4,
            recipients: Vec::new(),
            passphrase: None,
            identity: None,
            copies: Vec::new(),
        }
    }
}

const GIB: u64 = 1024 * 1024 * 1024;
const ALLOWED: &str = "a mapping of schedule, verify, keep, max_age, max_bytes, task_logs_bytes, recipients, passphrase, \
                       identity and copies, see `leoflow config list`";
// Descriptions of allowed values, shown after "is not".
const SCHEDULE: &str = "a cron expression such as `0 3 * * *` or @daily, an interval of time awake such as 24h, or off";
const AGE: &str = "a duration such as 30d or 12h, or off";
const COUNT: &str = "a whole number of at least 1";
const BYTES: &str = "a whole number of bytes";
const RECIPIENTS: &str = "a list of public keys that `age-keygen` made (age1…; SSH keys are not supported)";
const ONE_OF_TWO: &str = "allowed together with recipients: age supports one of the two";
const SECRET_REFERENCE: &str = "file:/PATH or env:NAME (config.yaml must not contain the passphrase itself)";
const PATH: &str = "an absolute path";

impl BackupSettings {
    pub(crate) const KEYS: &[&str] = &[
        "schedule",
        "verify",
        "keep",
        "max_age",
        "max_bytes",
        "task_logs_bytes",
        "recipients",
        "passphrase",
        "identity",
        "copies",
    ];

    /// Parses the value of the key; `Err` describes the allowed values.
    pub fn read(value: &Value) -> Result<Self, ValueError> {
        let mapping = value.as_mapping().ok_or(ALLOWED)?;
        let mut settings = Self::default();
        for (key, value) in mapping {
            let text = value.as_str();
            let path = || text.filter(|path| path.starts_with('/')).map(PathBuf::from);
            let age = || text.and_then(duration).filter(|age| !age.is_zero());
            match key.as_str() {
                Some("schedule") => set(&mut settings.schedule, text.and_then(Cadence::parse), "schedule", SCHEDULE)?,
                Some("verify") => set(&mut settings.verify, text.and_then(Cadence::parse), "verify", SCHEDULE)?,
                Some("keep") => set(&mut settings.keep, count(value), "keep", COUNT)?,
                Some("max_age") if value == "off" => settings.max_age = None,
                Some("max_age") => set(&mut settings.max_age, age().map(Some), "max_age", AGE)?,
                Some("max_bytes") => set(&mut settings.max_bytes, value.as_u64(), "max_bytes", BYTES)?,
                Some("task_logs_bytes") => {
                    set(&mut settings.task_logs_bytes, value.as_u64(), "task_logs_bytes", BYTES)?
                }
                Some("recipients") => set(&mut settings.recipients, recipients(value), "recipients", RECIPIENTS)?,
                Some("passphrase") => {
                    let reference = text.and_then(SecretReference::parse).map(Some);
                    set(&mut settings.passphrase, reference, "passphrase", SECRET_REFERENCE)?;
                }
                Some("identity") => set(&mut settings.identity, path().map(Some), "identity", PATH)?,
                Some("copies") => {
                    settings.copies = copies::read(value).map_err(|error| ValueError {
                        subkey: Some("copies"),
                        ..ValueError::because(error.to_string())
                    })?;
                }
                // An unknown key may belong to a later release; the caller warns about it.
                _ => {}
            }
        }
        if settings.passphrase.is_some() && !settings.recipients.is_empty() {
            return Err(ValueError::in_subkey("passphrase", ONE_OF_TWO));
        }
        Ok(settings)
    }
}

/// Sets a field to its value; `None` is not allowed.
fn set<T>(field: &mut T, value: Option<T>, subkey: &'static str, allowed: &'static str) -> Result<(), ValueError> {
    *field = value.ok_or(ValueError::in_subkey(subkey, allowed))?;
    Ok(())
}

fn recipients(value: &Value) -> Option<Vec<Recipient>> {
    let list = value.as_sequence()?;
    list.iter().map(|item| item.as_str().and_then(Recipient::parse)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BackupSettings, ValueError> {
        BackupSettings::read(&serde_yaml::from_str(text).unwrap())
    }

    #[test]
    fn applies_defaults_and_rejects_invalid_values() {
        assert_eq!(read("{keep: 2}"), Ok(BackupSettings { keep: 2, ..BackupSettings::default() }));
        assert_eq!(read("{max_bytes: 1, task_logs_bytes: 0}").unwrap().task_logs_bytes, 0);
        assert_eq!(read("{kept: 1}"), Ok(BackupSettings::default()));
        for wrong in ["[1]", "3"] {
            assert_eq!(read(wrong), Err(ALLOWED.into()), "{wrong}");
        }
        for (subkey, value, allowed) in [
            ("keep", "0", COUNT),
            ("keep", "many", COUNT),
            ("max_bytes", "-1", BYTES),
            ("schedule", "'0 25 * * *'", SCHEDULE),
            ("schedule", "5", SCHEDULE),
            ("verify", "never", SCHEDULE),
            ("max_age", "0d", AGE),
            ("recipients", "age1", RECIPIENTS),
            ("recipients", "[age1nokey]", RECIPIENTS),
            ("passphrase", "swordfish", SECRET_REFERENCE),
            ("identity", "key.txt", PATH),
        ] {
            assert_eq!(
                read(&format!("{{{subkey}: {value}}}")),
                Err(ValueError::in_subkey(subkey, allowed)),
                "{subkey}: {value}"
            );
        }
    }

    #[test]
    fn parses_cron_schedules_and_awake_intervals() {
        assert_eq!(read("{schedule: 'off'}").unwrap().schedule, Cadence::Off);
        assert_eq!(read("{schedule: 24h}").unwrap().schedule, Cadence::Awake(Duration::from_secs(86_400)));
        assert_eq!(read("{max_age: 30d}").unwrap().max_age, Some(Duration::from_secs(30 * 86_400)));
    }
}
