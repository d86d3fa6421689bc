//! The `backup` key: when backups are made and verified by themselves, how many stay, and how much goes into one.

use super::cadence::{Cadence, duration};
use super::keys::Wrong;
use super::{Recipient, SecretPlace};
use serde_yaml::Value;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSettings {
    /// When one is made by itself.
    pub schedule: Cadence,
    /// When the newest is verified by itself.
    pub verify: Cadence,
    /// Automatic backups that stay, the newest.
    pub keep: u64,
    /// How old they may become.
    pub max_age: Option<Duration>,
    /// Bytes that they may take together.
    pub max_bytes: u64,
    /// Bytes of task logs in a backup, the newest.
    pub task_logs_bytes: u64,
    /// Who backups are encrypted to; nobody, and they are not.
    pub recipients: Vec<Recipient>,
    /// Or what they are encrypted with.
    pub passphrase: Option<SecretPlace>,
    /// A private key on this machine, by which they can be verified here.
    pub identity: Option<PathBuf>,
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
        }
    }
}

const GIB: u64 = 1024 * 1024 * 1024;
const ALLOWED: &str = "a mapping of schedule, verify, keep, max_age, max_bytes, task_logs_bytes, recipients, passphrase and \
                       identity, as `leoflow config --help` has them";
const SCHEDULE: &str = "a cron expression as `0 3 * * *` or @daily, a time awake as 24h, or off";
const AGE: &str = "a time as 30d or 12h, or off";
const COUNT: &str = "a whole number from 1";
const BYTES: &str = "a whole number of bytes";
const RECIPIENTS: &str = "a list of public keys, each age1… or ssh-ed25519 …";
const ONE_OF_TWO: &str = "possible beside recipients: age takes either";
const PLACE: &str = "file:/PATH or env:NAME; the passphrase itself is kept elsewhere";
const PATH: &str = "an absolute path";

impl BackupSettings {
    pub const KEYS: &[&str] = &[
        "schedule",
        "verify",
        "keep",
        "max_age",
        "max_bytes",
        "task_logs_bytes",
        "recipients",
        "passphrase",
        "identity",
    ];

    /// From the value of the key. `Err` is what is allowed.
    pub fn read(value: &Value) -> Result<Self, Wrong> {
        let mapping = value.as_mapping().ok_or(ALLOWED)?;
        let mut settings = Self::default();
        for (key, value) in mapping {
            let cadence = |key| value.as_str().and_then(Cadence::parse).ok_or(Wrong::in_key(key, SCHEDULE));
            let bytes = |key| value.as_u64().ok_or(Wrong::in_key(key, BYTES));
            match key.as_str() {
                Some("schedule") => settings.schedule = cadence("schedule")?,
                Some("verify") => settings.verify = cadence("verify")?,
                Some("keep") => {
                    let keep = value.as_u64().filter(|keep| *keep >= 1);
                    settings.keep = keep.ok_or(Wrong::in_key("keep", COUNT))?;
                }
                Some("max_age") if value == "off" => settings.max_age = None,
                Some("max_age") => {
                    let age = value.as_str().and_then(duration).filter(|age| !age.is_zero());
                    settings.max_age = Some(age.ok_or(Wrong::in_key("max_age", AGE))?);
                }
                Some("max_bytes") => settings.max_bytes = bytes("max_bytes")?,
                Some("task_logs_bytes") => settings.task_logs_bytes = bytes("task_logs_bytes")?,
                Some("recipients") => {
                    settings.recipients = recipients(value).ok_or(Wrong::in_key("recipients", RECIPIENTS))?;
                }
                Some("passphrase") => {
                    let place = value.as_str().and_then(SecretPlace::parse);
                    settings.passphrase = Some(place.ok_or(Wrong::in_key("passphrase", PLACE))?);
                }
                Some("identity") => {
                    let path = value.as_str().filter(|path| path.starts_with('/'));
                    settings.identity = Some(path.ok_or(Wrong::in_key("identity", PATH))?.into());
                }
                // Of a release after this one, perhaps; whoever reads the file says so.
                _ => {}
            }
        }
        if settings.passphrase.is_some() && !settings.recipients.is_empty() {
            return Err(Wrong::in_key("passphrase", ONE_OF_TWO));
        }
        Ok(settings)
    }
}

fn recipients(value: &Value) -> Option<Vec<Recipient>> {
    let list = value.as_sequence()?;
    list.iter().map(|one| one.as_str().and_then(Recipient::parse)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BackupSettings, Wrong> {
        BackupSettings::read(&serde_yaml::from_str(text).unwrap())
    }

    #[test]
    fn what_is_not_said_is_as_usual_and_what_is_wrong_is_refused() {
        assert_eq!(read("{keep: 2}"), Ok(BackupSettings { keep: 2, ..BackupSettings::default() }));
        assert_eq!(read("{max_bytes: 1, task_logs_bytes: 0}").unwrap().task_logs_bytes, 0);
        assert_eq!(read("{kept: 1}"), Ok(BackupSettings::default()));
        for wrong in ["[1]", "3"] {
            assert_eq!(read(wrong), Err(ALLOWED.into()), "{wrong}");
        }
        for (inner, value, allowed) in [
            ("keep", "0", COUNT),
            ("keep", "many", COUNT),
            ("max_bytes", "-1", BYTES),
            ("schedule", "'0 25 * * *'", SCHEDULE),
            ("schedule", "5", SCHEDULE),
            ("verify", "never", SCHEDULE),
            ("max_age", "0d", AGE),
            ("recipients", "age1", RECIPIENTS),
            ("recipients", "[age1nokey]", RECIPIENTS),
            ("passphrase", "swordfish", PLACE),
            ("identity", "key.txt", PATH),
        ] {
            assert_eq!(read(&format!("{{{inner}: {value}}}")), Err(Wrong::in_key(inner, allowed)), "{inner}: {value}");
        }
    }

    #[test]
    fn a_schedule_is_an_expression_or_a_time_awake() {
        assert_eq!(read("{schedule: 'off'}").unwrap().schedule, Cadence::Off);
        assert_eq!(read("{schedule: 24h}").unwrap().schedule, Cadence::Awake(Duration::from_secs(86_400)));
        assert_eq!(read("{max_age: 30d}").unwrap().max_age, Some(Duration::from_secs(30 * 86_400)));
    }
}
