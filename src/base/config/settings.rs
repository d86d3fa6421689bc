//! The user settings of `config.yaml`: name, default, description and how to change them.

use super::load::{Loaded, parse};
use super::{DEPRECATED, DatastoreSetting, EditError, Problem, remove_key, remove_subkey, set_keys};
use serde_yaml::{Mapping, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// A whole number, or `off`.
    Limit,
    /// Several values, separated by commas on the command line.
    List,
}

/// A setting. A name with a dot is a key of a mapping: `upgrade.channel`.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    kind: Kind,
    /// Default value, or a description of the default if `is_value` is false.
    pub default: &'static str,
    pub is_value: bool,
    pub help: &'static str,
    /// Running processes keep the old value until a restart.
    pub needs_restart: bool,
}

const fn text(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Text, default, is_value: true, help, needs_restart: false }
}

const fn number(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Number, default, is_value: true, help, needs_restart: false }
}

/// A limit that is off by default.
const fn limit(name: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Limit, default: "off", is_value: true, help, needs_restart: false }
}

/// A list that is empty by default; `default` describes that.
const fn list(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::List, default, is_value: false, help, needs_restart: false }
}

/// A setting whose default is computed or absent; `default` describes it.
const fn described_default(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { is_value: false, ..text(name, default, help) }
}

/// A setting that takes effect after a restart.
const fn at_start(setting: Setting) -> Setting {
    Setting { needs_restart: true, ..setting }
}

pub const SETTINGS: &[Setting] = &[
    text("instance_name", "leoflow", "name of this instance, shown on its pages and in its backups"),
    at_start(described_default("workspace", "~/leoflow", "folder of your projects")),
    at_start(number("port", "8088", "TCP port of the web server")),
    at_start(text(
        "host",
        "127.0.0.1",
        "IPv4 address that the web server listens on; 0.0.0.0 listens on all, so that other machines can connect",
    )),
    text("admin_email", super::DEFAULT_ADMIN_EMAIL, "login name of the administrator"),
    at_start(described_default(
        "python",
        "the first Python 3.10 or newer on the PATH",
        "path of the Python that runs your DAGs",
    )),
    at_start(described_default(
        "web_ui",
        "3.3",
        "minor version of Airflow whose web UI is shown: 3.3 or 3.4; another one than the default comes from the package \
         index",
    )),
    at_start(described_default(
        "datastore",
        "managed",
        "location of your data: managed, docker, or datastore.url; change it with `leoflow lite move-datastore`",
    )),
    at_start(described_default(
        "datastore.url",
        "none",
        "URL of your own PostgreSQL server: postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME that contains it",
    )),
    at_start(number("max_map_length", "1024", "maximum number of elements a task may be mapped over")),
    at_start(text("log_level", "info", "log level: error, warn, info, debug or trace")),
    text(
        "backup.schedule",
        "@daily",
        "schedule of automatic backups: a cron expression, off, or an interval such as 24h, which counts only time that \
         the machine is awake; a missed backup is created when the machine is awake again",
    ),
    text("backup.verify", "@weekly", "schedule of test restores of the newest backup; same format as backup.schedule"),
    number("backup.keep", "7", "number of automatic backups to keep, newest first"),
    text("backup.max_age", "off", "maximum age of automatic backups, such as 30d or 12h; off means no limit"),
    number("backup.max_bytes", "5368709120", "maximum total size of automatic backups, in bytes; the default is 5 GiB"),
    number(
        "backup.task_logs_bytes",
        "268435456",
        "maximum size of task logs in a backup, newest first, in bytes; the default is 256 MiB",
    ),
    list(
        "backup.recipients",
        "none: backups are not encrypted",
        "public keys that backups are encrypted to, separated by commas: age1KEY",
    ),
    described_default(
        "backup.passphrase",
        "none",
        "location of the passphrase for encryption without public keys: file:/PATH or env:NAME",
    ),
    described_default(
        "backup.identity",
        "none",
        "path of the private key for test restores of encrypted backups on this machine",
    ),
    list(
        "backup.copies",
        "none",
        "places that new backups are copied to: folders, s3://BUCKET/PREFIX and sftp://USER@HOST/PATH; as a mapping of to and \
         keep in the file, each with its own number of backups [default: 30]",
    ),
    limit("history.keep_days", "runs that ended more than this many days ago are removed, with their tasks and XComs"),
    limit(
        "history.keep_runs",
        "number of runs to keep for each DAG, newest first; with history.keep_days, a run is removed only when neither keeps it",
    ),
    text(
        "history.archive",
        "on",
        "on removes a run only when a test-restored backup holds it, and keeps that backup; off removes it without",
    ),
    limit(
        "history.task_logs_days",
        "task logs that were last written more than this many days ago are removed; their runs stay",
    ),
    limit("history.task_logs_bytes", "maximum total size of task logs, in bytes; the oldest are removed"),
    described_default(
        "notify.heartbeat",
        "none",
        "URL that is called after each backup and every notify.heartbeat_every while the instance is healthy, for a dead man's switch",
    ),
    text("notify.heartbeat_every", "5m", "interval of calling notify.heartbeat, such as 5m or 1h"),
    text("upgrade.channel", "stable", "release channel: stable, or rc to include release candidates"),
    described_default("upgrade.from", "where this release came from", "location of releases: a URL or a folder"),
    number("upgrade.keep_versions", "3", "number of releases to keep in addition to the current one"),
    text(
        "upgrade.keep_snapshot",
        "24h",
        "how long the copy of the database that an upgrade creates is kept, such as 24h, 90m or 2d",
    ),
    text(
        "upgrade.cleanup_after",
        "7d",
        "delay before a release's schema removals (contract migrations) are applied, such as 7d, 24h or 90m",
    ),
    text(
        "upgrade.max_pause",
        "60s",
        "maximum time that requests wait during an upgrade before it is rolled back, such as 60s, 5m or 1h",
    ),
];

/// Keys whose values are never shown, each with the text that says how to change it. A user can set them only to a
/// reference (`file:` or `env:`) to the secret; `session_epoch`, a number, cannot be set.
pub const SECRETS: &[(&str, &str)] = &[
    ("admin_password_hash", "leoflow lite reset-password"),
    ("jwt_secret", "`leoflow lite reset-password` and a restore generate a new one, which ends all sessions"),
    ("session_epoch", "leoflow lite reset-password"),
    ("encryption_key", "stored secrets can be read only with this key; a restore brings the key of the backup"),
];

#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("{0} is not {1}")]
    Invalid(String, String),
    #[error("the file is not valid: {}", .0.first().map(|problem| problem.message.as_str()).unwrap_or_default())]
    File(Vec<Problem>),
    #[error(transparent)]
    Edit(#[from] EditError),
}

impl Setting {
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The type of the value as users write it.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Text => "text",
            Kind::Number => "whole number",
            Kind::Limit => "whole number or off",
            Kind::List => "list",
        }
    }

    /// Top-level key and, for a mapping, the key inside it.
    fn path(&self) -> (&'static str, Option<&'static str>) {
        self.name.split_once('.').map_or((self.name, None), |(outer, subkey)| (outer, Some(subkey)))
    }

    /// Effective value; `None` if it is not set anywhere.
    pub fn value_in(&self, loaded: &Loaded) -> Option<String> {
        self.value_in_mapping(&loaded.mapping)
    }

    fn value_in_mapping(&self, mapping: &Mapping) -> Option<String> {
        let value = match self.path() {
            (outer, None) => mapping.get(outer)?.clone(),
            (outer, Some(subkey)) => mapping.get(outer)?.get(subkey)?.clone(),
        };
        match value {
            // Shows the URL without its password.
            Value::String(text) if self.name == "datastore.url" => {
                Some(DatastoreSetting::parse(&text).map_or(text, |setting| setting.to_string()))
            }
            // With the address, anybody can report a dead instance as alive.
            Value::String(_) if self.name == "notify.heartbeat" => Some("(set)".to_owned()),
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Sequence(list) => Some({
                // A place of `backup.copies` may be a mapping.
                let text = |item: &'_ Value| item.as_str().or_else(|| item.get("to")?.as_str()).map(str::to_owned);
                list.iter().filter_map(text).collect::<Vec<_>>().join(", ")
            }),
            _ => None,
        }
    }

    /// Parses a value from the command line or a variable.
    pub(super) fn value(&self, text: &str) -> Result<Value, SettingError> {
        Ok(match self.kind {
            Kind::Text => text.into(),
            Kind::Limit if text == "off" => text.into(),
            Kind::List => text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>().into(),
            Kind::Number | Kind::Limit => {
                let number: Result<u64, _> = text.parse();
                number.map_err(|_| SettingError::Invalid(text.to_owned(), "a whole number".to_owned()))?.into()
            }
        })
    }

    /// Returns the file's text with this value; keeps everything else and checks all of it.
    pub fn set(&self, file: &str, value: &str) -> Result<String, SettingError> {
        let value = self.value(value)?;
        let changed = match self.path() {
            (outer, None) => set_keys(file, &[(outer, value)])?,
            (outer, Some(subkey)) => {
                let current: Option<Mapping> = serde_yaml::from_str(file).ok();
                let mut mapping = current
                    .and_then(|current| current.get(outer).and_then(Value::as_mapping).cloned())
                    .unwrap_or_default();
                mapping.insert(subkey.into(), value);
                set_keys(file, &[(outer, Value::Mapping(mapping))])?
            }
        };
        checked(changed)
    }

    /// Returns the file's text without this setting.
    pub fn unset(&self, file: &str) -> Result<String, SettingError> {
        match self.path() {
            (outer, None) => checked(remove_key(file, outer)?),
            (outer, Some(subkey)) => checked(remove_subkey(file, outer, subkey)?),
        }
    }
}

/// Returns the text if all of it is valid.
fn checked(text: String) -> Result<String, SettingError> {
    match parse(&text, DEPRECATED) {
        Ok(_) => Ok(text),
        Err(problems) => Err(SettingError::File(problems)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    fn written(setting: &Setting, text: &str) -> Option<String> {
        setting.value_in_mapping(&serde_yaml::from_str(text).unwrap())
    }

    #[test]
    fn every_key_of_the_file_is_a_setting_or_a_secret() {
        for key in KEYS {
            let is_setting = SETTINGS.iter().any(|setting| setting.path().0 == key.name);
            let is_secret = SECRETS.iter().any(|(name, _)| *name == key.name);
            assert!(is_setting != is_secret, "{}", key.name);
        }
    }

    #[test]
    fn setting_a_value_checks_it_and_keeps_the_rest() {
        let file = "# mine\nport: 8088 # the page\nupgrade:\n  from: /usb\n";
        let set = |name: &str, value: &str| Setting::find(name).unwrap().set(file, value);
        assert_eq!(set("port", "9000").unwrap(), file.replace("8088", "9000"));
        let changed = set("upgrade.channel", "rc").unwrap();
        let channel = Setting::find("upgrade.channel").unwrap();
        assert_eq!((written(channel, &changed).as_deref(), written(channel, file)), (Some("rc"), None));
        assert!(changed.contains("from: /usb") && changed.starts_with("# mine\n"), "{changed}");
        for (name, value) in [("port", "many"), ("port", "70000"), ("host", "example.org"), ("backup.keep", "0")] {
            assert!(set(name, value).is_err(), "{name} {value}");
        }
        let unset = |name: &str| Setting::find(name).unwrap().unset(&changed).unwrap();
        assert_eq!(unset("upgrade.channel"), file);
        assert!(!unset("port").contains("port"));
        for file in ["a: 1\nupgrade:\n  # where\n  from: /usb\n", "a: 1\nupgrade: {from: /usb}\n"] {
            let from_setting = Setting::find("upgrade.from").unwrap();
            let left: Mapping = serde_yaml::from_str(&remove_subkey(file, "upgrade", "from").unwrap()).unwrap();
            assert_eq!((left.len(), written(from_setting, "a: 1\n")), (1, None), "{file}");
        }
        let channel_only = remove_subkey("upgrade: {from: /usb, channel: rc} # x\n", "upgrade", "from").unwrap();
        assert_eq!(channel_only, "upgrade: {channel: rc} # x\n");
        for setting in SETTINGS.iter().filter(|setting| setting.is_value) {
            let set = setting.set("", setting.default).unwrap();
            assert_eq!(written(setting, &setting.unset(&set).unwrap()), None, "{}", setting.name);
        }
    }
}
