//! The table of the keys in `config.yaml`, with the check of each key's value.

use super::{BackupSettings, DatastoreSetting, SecretReference, UpgradeSettings};
use crate::protocol::log;
use serde_yaml::Value;
use std::net::Ipv4Addr;

/// A key of `config.yaml` and the check of its value.
pub struct Key {
    pub name: &'static str,
    pub check: fn(&Value) -> Result<(), ValueError>,
    /// Keys allowed in the value, if it is a mapping.
    pub subkeys: &'static [&'static str],
}

/// A key whose value is not a mapping.
const fn scalar_key(name: &'static str, check: fn(&Value) -> Result<(), ValueError>) -> Key {
    Key { name, check, subkeys: &[] }
}

/// The error of a failed check: where the wrong value is, and which values are allowed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueError {
    /// The key inside the mapping that has the wrong value; `None` if the value of the top-level key itself is wrong.
    pub subkey: Option<&'static str>,
    /// Describes the allowed values, such as `an absolute path`.
    pub allowed: &'static str,
}

impl From<&'static str> for ValueError {
    fn from(allowed: &'static str) -> Self {
        Self { subkey: None, allowed }
    }
}

impl ValueError {
    pub fn in_subkey(subkey: &'static str, allowed: &'static str) -> Self {
        Self { subkey: Some(subkey), allowed }
    }
}

pub const KEYS: &[Key] = &[
    scalar_key("instance_name", |value| Ok(short_text(value)?)),
    scalar_key("workspace", |value| Ok(absolute_path(value)?)),
    scalar_key("port", |value| Ok(port(value)?)),
    scalar_key("host", |value| Ok(host(value)?)),
    scalar_key("admin_email", |value| Ok(email(value)?)),
    scalar_key("admin_password_hash", |value| Ok(argon2_hash(value)?)),
    scalar_key("session_epoch", |value| Ok(whole_number(value)?)),
    scalar_key("jwt_secret", |value| Ok(secret_256_bits(value)?)),
    scalar_key("encryption_key", |value| Ok(secret_256_bits(value)?)),
    scalar_key("python", |value| Ok(absolute_path(value)?)),
    scalar_key("max_map_length", |value| Ok(map_length(value)?)),
    scalar_key("log_level", |value| Ok(log_level(value)?)),
    Key { name: "datastore", check: |value| DatastoreSetting::read(value).map(drop), subkeys: DatastoreSetting::KEYS },
    Key { name: "backup", check: |value| BackupSettings::read(value).map(drop), subkeys: BackupSettings::KEYS },
    Key { name: "upgrade", check: |value| UpgradeSettings::read(value).map(drop), subkeys: UpgradeSettings::KEYS },
];

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

// Checks of values. The error describes the allowed values.

fn short_text(value: &Value) -> Result<(), &'static str> {
    let allowed = "a name of 1 to 100 characters";
    let is_valid = |text: &str| (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    value.as_str().is_some_and(is_valid).then_some(()).ok_or(allowed)
}

fn absolute_path(value: &Value) -> Result<(), &'static str> {
    value.as_str().is_some_and(|text| text.starts_with('/')).then_some(()).ok_or("an absolute path")
}

fn port(value: &Value) -> Result<(), &'static str> {
    value.as_u64().is_some_and(|n| (1..=65535).contains(&n)).then_some(()).ok_or("a port number from 1 to 65535")
}

fn host(value: &Value) -> Result<(), &'static str> {
    let is_valid = |text: &str| text.parse().is_ok_and(|host: Ipv4Addr| !host.is_multicast() && !host.is_broadcast());
    value.as_str().is_some_and(is_valid).then_some(()).ok_or("an IPv4 address such as 127.0.0.1 or 0.0.0.0")
}

fn log_level(value: &Value) -> Result<(), &'static str> {
    let is_valid = |text: &str| log::level(text).is_some();
    value.as_str().is_some_and(is_valid).then_some(()).ok_or("error, warn, info, debug or trace")
}

fn email(value: &Value) -> Result<(), &'static str> {
    let is_valid = |text: &str| text.len() <= 254 && text.contains('@') && !text.contains(char::is_whitespace);
    value.as_str().is_some_and(is_valid).then_some(()).ok_or("an e-mail address")
}

fn argon2_hash(value: &Value) -> Result<(), &'static str> {
    value
        .as_str()
        .is_some_and(|text| text.starts_with("$argon2id$") || SecretReference::parse(text).is_some())
        .then_some(())
        .ok_or("an argon2id hash as written by setup")
}

fn map_length(value: &Value) -> Result<(), &'static str> {
    value.as_u64().is_some_and(|n| (1..=1_000_000).contains(&n)).then_some(()).ok_or("a whole number from 1 to 1000000")
}

fn whole_number(value: &Value) -> Result<(), &'static str> {
    value.as_u64().map(|_| ()).ok_or("a whole number of at least 0")
}

fn secret_256_bits(value: &Value) -> Result<(), &'static str> {
    let is_valid = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_allowed = |text: &str| is_valid(text) || SecretReference::parse(text).is_some();
    value.as_str().is_some_and(is_allowed).then_some(()).ok_or("64 hexadecimal digits as written by setup")
}
