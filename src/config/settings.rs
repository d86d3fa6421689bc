//! The keys of `config.yaml` that are a user's to choose, one by one: what each is for, and how it is set.

use super::load::{Loaded, parse};
use super::{DEPRECATED, DatastoreSetting, EditError, Problem, remove_inner_key, remove_key, set_keys};
use serde_yaml::{Mapping, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// Several, parted by commas where it is set on the command line.
    List,
}

/// One of them. A name with a dot is a key of a mapping: `upgrade.channel`.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    kind: Kind,
    /// What is in force where the file says nothing; in words where it is no value.
    pub default: &'static str,
    pub is_value: bool,
    pub help: &'static str,
    /// A process goes by what it was when that began.
    pub needs_restart: bool,
}

const fn text(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Text, default, is_value: true, help, needs_restart: false }
}

const fn number(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Number, default, is_value: true, help, needs_restart: false }
}

/// One that is nothing by default, which is told in words.
const fn list(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::List, default, is_value: false, help, needs_restart: false }
}

/// One whose default is found out, and told in words.
const fn found(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { is_value: false, ..text(name, default, help) }
}

/// One that is in force after a restart.
const fn at_start(setting: Setting) -> Setting {
    Setting { needs_restart: true, ..setting }
}

pub const SETTINGS: &[Setting] = &[
    text("instance_name", "leoflow", "what this instance is called, on its pages and in its backups"),
    at_start(found("workspace", "~/leoflow", "the folder with your projects")),
    at_start(number("port", "8088", "where the page is served")),
    at_start(text(
        "host",
        "127.0.0.1",
        "the IPv4 address that the page is served at; 0.0.0.0 is every one of this machine's, for others in its network",
    )),
    text("admin_email", super::DEFAULT_ADMIN_EMAIL, "who logs in"),
    at_start(found("python", "the first on the PATH that is new enough", "the Python that runs your DAGs")),
    at_start(found(
        "datastore",
        "managed",
        "where your data is: managed, docker, or datastore.url; `leoflow lite move-datastore` changes it",
    )),
    at_start(found(
        "datastore.url",
        "none",
        "postgres://ROLE:PASSWORD@HOST/DATABASE of a server of your own, or file:/PATH or env:NAME with that",
    )),
    at_start(number("max_map_length", "1024", "how many elements a task may return that others are mapped over")),
    at_start(text("log_level", "info", "how much the logs say: error, warn, info, debug or trace")),
    text(
        "backup.schedule",
        "@daily",
        "when a backup is made by itself: a cron expression, a time awake as 24h, or off; what was missed is made when \
         this machine is awake again",
    ),
    text("backup.verify", "@weekly", "when the newest is restored on trial by itself: as backup.schedule"),
    number("backup.keep", "7", "automatic backups that stay, the newest"),
    text("backup.max_age", "off", "how old automatic backups may become: 30d, 12h, off"),
    number("backup.max_bytes", "5368709120", "bytes that automatic backups may take together"),
    number("backup.task_logs_bytes", "268435456", "bytes of task logs in a backup, the newest"),
    list(
        "backup.recipients",
        "nobody: backups are not encrypted",
        "public keys that backups are encrypted to, parted by commas: age1… or ssh-ed25519 …",
    ),
    found(
        "backup.passphrase",
        "none",
        "where the passphrase is that backups are encrypted with instead: file:/PATH or env:NAME",
    ),
    found("backup.identity", "none", "the file of a private key by which they are verified on this machine"),
    text("upgrade.channel", "stable", "stable, or rc for release candidates too"),
    found("upgrade.from", "where this release came from", "where releases are: a URL or a folder"),
    number("upgrade.keep_versions", "3", "releases that stay beside the one in use"),
    text(
        "upgrade.keep_snapshot",
        "24h",
        "how long the copy of the database from before an upgrade stays: 24h, 90m, 2d",
    ),
    text(
        "upgrade.contract_after",
        "7d",
        "how long what a release takes away of the schema stays after it was first seen: 7d, 24h, 90m",
    ),
    text(
        "upgrade.max_pause",
        "60s",
        "how long requests may wait for an upgrade before the release before goes on: 60s, 5m, 1h",
    ),
];

/// Keys that are never shown nor set one by one, each with the command that changes it.
pub const SECRETS: &[(&str, &str)] = &[
    ("admin_password_hash", "leoflow lite reset-password"),
    ("jwt_secret", "leoflow lite reset-password"),
    ("session_epoch", "leoflow lite reset-password"),
    ("encryption_key", "restore a backup: stored secrets could not be read with another one"),
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

    /// The key of the file, and the one inside it.
    fn path(&self) -> (&'static str, Option<&'static str>) {
        self.name.split_once('.').map_or((self.name, None), |(outer, inner)| (outer, Some(inner)))
    }

    /// What is in force; `None` where nobody says anything.
    pub fn value_in(&self, loaded: &Loaded) -> Option<String> {
        self.of(&loaded.mapping)
    }

    fn of(&self, mapping: &Mapping) -> Option<String> {
        let value = match self.path() {
            (outer, None) => mapping.get(outer)?.clone(),
            (outer, Some(inner)) => mapping.get(outer)?.get(inner)?.clone(),
        };
        match value {
            // A password is not shown.
            Value::String(text) if self.name == "datastore.url" => {
                Some(DatastoreSetting::parse(&text).map_or(text, |setting| setting.to_string()))
            }
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Sequence(list) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
            _ => None,
        }
    }

    /// From what stands on a command line, or in a variable.
    pub(super) fn value(&self, text: &str) -> Result<Value, SettingError> {
        Ok(match self.kind {
            Kind::Text => text.into(),
            Kind::List => text.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>().into(),
            Kind::Number => {
                let number: Result<u64, _> = text.parse();
                number.map_err(|_| SettingError::Invalid(text.to_owned(), "a whole number".to_owned()))?.into()
            }
        })
    }

    /// The file with this value; everything else in it stays, and all of it is checked.
    pub fn set(&self, file: &str, value: &str) -> Result<String, SettingError> {
        let value = self.value(value)?;
        let changed = match self.path() {
            (outer, None) => set_keys(file, &[(outer, value)])?,
            (outer, Some(inner)) => {
                let now: Option<Mapping> = serde_yaml::from_str(file).ok();
                let mut mapping =
                    now.and_then(|now| now.get(outer).and_then(Value::as_mapping).cloned()).unwrap_or_default();
                mapping.insert(inner.into(), value);
                set_keys(file, &[(outer, Value::Mapping(mapping))])?
            }
        };
        checked(changed)
    }

    /// The file without it.
    pub fn unset(&self, file: &str) -> Result<String, SettingError> {
        match self.path() {
            (outer, None) => checked(remove_key(file, outer)?),
            (outer, Some(inner)) => checked(remove_inner_key(file, outer, inner)?),
        }
    }
}

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
        setting.of(&serde_yaml::from_str(text).unwrap())
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
    fn what_is_set_is_checked_and_the_rest_stays() {
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
            let all = Setting::find("upgrade.from").unwrap();
            let left: Mapping = serde_yaml::from_str(&remove_inner_key(file, "upgrade", "from").unwrap()).unwrap();
            assert_eq!((left.len(), written(all, "a: 1\n")), (1, None), "{file}");
        }
        let two = remove_inner_key("upgrade: {from: /usb, channel: rc} # x\n", "upgrade", "from").unwrap();
        assert_eq!(two, "upgrade: {channel: rc} # x\n");
        for setting in SETTINGS.iter().filter(|setting| setting.is_value) {
            let set = setting.set("", setting.default).unwrap();
            assert_eq!(written(setting, &setting.unset(&set).unwrap()), None, "{}", setting.name);
        }
    }
}
