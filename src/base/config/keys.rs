//! The table of the keys in `config.yaml`, with the check of each key's value.

use super::{BackupSettings, DatastoreSetting, HistorySettings, NotifySettings, SecretReference, UpgradeSettings};
use crate::airflow_minors::ui_of;
use crate::protocol::log;
use serde_yaml::{Mapping, Value};
use std::net::Ipv4Addr;

/// A key of `config.yaml` and the check of its value.
pub struct Key {
    pub name: &'static str,
    check: Check,
    /// Keys allowed in the value, if it is a mapping.
    pub subkeys: &'static [&'static str],
}

enum Check {
    /// Describes the allowed values, and tests one.
    Scalar(&'static str, fn(&Value) -> bool),
    Mapping(fn(&Value) -> Result<(), ValueError>),
}

const fn scalar(name: &'static str, allowed: &'static str, is_allowed: fn(&Value) -> bool) -> Key {
    Key { name, check: Check::Scalar(allowed, is_allowed), subkeys: &[] }
}

const fn mapping(
    name: &'static str,
    subkeys: &'static [&'static str],
    check: fn(&Value) -> Result<(), ValueError>,
) -> Key {
    Key { name, check: Check::Mapping(check), subkeys }
}

impl Key {
    pub fn check(&self, value: &Value) -> Result<(), ValueError> {
        match self.check {
            Check::Scalar(allowed, is_allowed) => is_allowed(value).then_some(()).ok_or(allowed.into()),
            Check::Mapping(check) => check(value),
        }
    }
}

/// The error of a failed check: where the wrong value is, and which values are allowed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// The key inside the mapping that has the wrong value; `None` if the value of the top-level key itself is wrong.
    pub subkey: Option<&'static str>,
    /// Describes the allowed values, such as `an absolute path`.
    pub allowed: &'static str,
    /// Why the value is wrong, where that says more than `allowed`.
    pub reason: Option<String>,
}

impl From<&'static str> for ValueError {
    fn from(allowed: &'static str) -> Self {
        Self { subkey: None, allowed, reason: None }
    }
}

impl ValueError {
    pub fn in_subkey(subkey: &'static str, allowed: &'static str) -> Self {
        Self { subkey: Some(subkey), allowed, reason: None }
    }

    pub(super) fn because(reason: String) -> Self {
        Self { subkey: None, allowed: "valid", reason: Some(reason) }
    }
}

/// Reads the value of a key in a mapping; `Ok(None)` without the key.
pub(super) fn field<'a, T>(
    mapping: &'a Mapping,
    subkey: &'static str,
    allowed: &'static str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, ValueError> {
    mapping.get(subkey).map(|value| read(value).ok_or(ValueError::in_subkey(subkey, allowed))).transpose()
}

/// The text of a version, which YAML may read as a number.
pub(super) fn scalar_text(value: &Value) -> String {
    value.as_str().map(str::to_owned).or_else(|| value.as_f64().map(|number| number.to_string())).unwrap_or_default()
}

/// Reads a whole number of at least 1.
pub(super) fn count(value: &Value) -> Option<u64> {
    value.as_u64().filter(|count| *count >= 1)
}

pub const KEYS: &[Key] = &[
    scalar("instance_name", "a name of 1 to 100 characters", |value| {
        let is_name = |text: &str| (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        value.as_str().is_some_and(is_name)
    }),
    scalar("workspace", "an absolute path", is_absolute_path),
    scalar("web_ui", "a minor version of Airflow whose web UI this release serves, such as 3.3", |value| {
        ui_of(&scalar_text(value)).is_some()
    }),
    scalar("port", "a port number from 1 to 65535", |value| is_within(value, 1, 65535)),
    scalar("host", "an IPv4 address such as 127.0.0.1 or 0.0.0.0", |value| {
        let is_own = |host: Ipv4Addr| !host.is_multicast() && !host.is_broadcast();
        value.as_str().is_some_and(|text| text.parse().is_ok_and(is_own))
    }),
    scalar("admin_email", "an e-mail address", |value| {
        let is_email = |text: &str| text.len() <= 254 && text.contains('@') && !text.contains(char::is_whitespace);
        value.as_str().is_some_and(is_email)
    }),
    scalar("admin_password_hash", "an argon2id hash as written by setup", |value| {
        is_secret(value, |text| text.starts_with("$argon2id$"))
    }),
    scalar("session_epoch", "a whole number of at least 0", |value| value.as_u64().is_some()),
    scalar("jwt_secret", KEY_256_BITS, is_key_256_bits),
    scalar("encryption_key", KEY_256_BITS, is_key_256_bits),
    scalar("python", "an absolute path", is_absolute_path),
    scalar("max_map_length", "a whole number from 1 to 1000000", |value| is_within(value, 1, 1_000_000)),
    scalar("log_level", "error, warn, info, debug or trace", |value| {
        value.as_str().is_some_and(|text| log::level(text).is_some())
    }),
    mapping("datastore", DatastoreSetting::KEYS, |value| DatastoreSetting::read(value).map(drop)),
    mapping("backup", BackupSettings::KEYS, |value| BackupSettings::read(value).map(drop)),
    mapping("history", HistorySettings::KEYS, |value| HistorySettings::read(value).map(drop)),
    mapping("notify", NotifySettings::KEYS, |value| {
        NotifySettings::read(value).map(drop).map_err(|error| ValueError::because(error.to_string()))
    }),
    mapping("upgrade", UpgradeSettings::KEYS, |value| UpgradeSettings::read(value).map(drop)),
];

const KEY_256_BITS: &str = "64 hexadecimal digits as written by setup";

fn is_key_256_bits(value: &Value) -> bool {
    is_secret(value, |text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// True for an allowed secret, or a reference to one.
fn is_secret(value: &Value, is_allowed: impl Fn(&str) -> bool) -> bool {
    value.as_str().is_some_and(|text| is_allowed(text) || SecretReference::parse(text).is_some())
}

fn is_absolute_path(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with('/'))
}

fn is_within(value: &Value, first: u64, last: u64) -> bool {
    value.as_u64().is_some_and(|number| (first..=last).contains(&number))
}

/// A renamed key, which may be a key of a mapping: `upgrade.channel`. The old name works for one minor version, with a
/// warning; later versions refuse it and name the new one.
pub struct Deprecated {
    pub name: &'static str,
    pub replacement: &'static str,
    /// The first version that warns of the old name.
    pub deprecated_in: &'static str,
    /// The version that no longer reads the old name.
    pub removed_in: &'static str,
}

/// An entry stays here after the removal, so that the refusal can name the new key.
pub const DEPRECATED: &[Deprecated] = &[Deprecated {
    name: "upgrade.contract_after",
    replacement: "upgrade.cleanup_after",
    deprecated_in: "0.2.0",
    removed_in: "0.3.0",
}];

/// What is said about an old name that is still used.
pub enum Notice {
    /// The name works; this is the warning.
    Deprecated(String),
    /// This version no longer reads the name; this is the refusal.
    Removed(String),
}

impl Deprecated {
    pub fn notice(&self, version: &str) -> Notice {
        let Self { name, replacement, removed_in, .. } = self;
        match numbers(version) >= numbers(removed_in) {
            true => Notice::Removed(format!("{name} was removed in {removed_in}: use {replacement}")),
            false => Notice::Deprecated(format!(
                "{name} is deprecated, use {replacement}; {name} works until version {removed_in}"
            )),
        }
    }
}

/// Major, minor and patch of a version; a missing or invalid number counts as 0.
fn numbers(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = core.split('.').map(|number| number.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}
