//! The table of the keys in `config.yaml`. Reading and checking the file use it.

use super::{BackupSettings, DatastoreSetting, SecretReference, UpgradeSettings};
use crate::protocol::log;
use serde_yaml::Value;
use std::net::Ipv4Addr;

/// A key and its allowed values; `check` describes them when a value is not allowed.
pub struct Key {
    pub name: &'static str,
    pub check: fn(&Value) -> Result<(), InvalidValue>,
    /// Keys allowed inside it, if its value is a mapping.
    pub subkeys: &'static [&'static str],
}

/// A key whose value is not a mapping.
const fn key(name: &'static str, check: fn(&Value) -> Result<(), InvalidValue>) -> Key {
    Key { name, check, subkeys: &[] }
}

/// Describes the allowed values after a failed check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidValue {
    /// The key inside the mapping that has the wrong value, if it is one of those.
    pub subkey: Option<&'static str>,
    pub allowed: &'static str,
}

impl From<&'static str> for InvalidValue {
    fn from(allowed: &'static str) -> Self {
        Self { subkey: None, allowed }
    }
}

impl InvalidValue {
    pub fn in_key(subkey: &'static str, allowed: &'static str) -> Self {
        Self { subkey: Some(subkey), allowed }
    }
}

pub const KEYS: &[Key] = &[
    key("instance_name", |value| Ok(short_text(value)?)),
    key("workspace", |value| Ok(absolute_path(value)?)),
    key("port", |value| Ok(port(value)?)),
    key("host", |value| Ok(host(value)?)),
    key("admin_email", |value| Ok(email(value)?)),
    key("admin_password_hash", |value| Ok(argon2_hash(value)?)),
    key("session_epoch", |value| Ok(whole_number(value)?)),
    key("jwt_secret", |value| Ok(key_256(value)?)),
    key("encryption_key", |value| Ok(key_256(value)?)),
    key("python", |value| Ok(absolute_path(value)?)),
    key("max_map_length", |value| Ok(map_length(value)?)),
    key("log_level", |value| Ok(log_level(value)?)),
    Key { name: "datastore", check: |value| DatastoreSetting::read(value).map(drop), subkeys: DatastoreSetting::KEYS },
    Key { name: "backup", check: |value| BackupSettings::read(value).map(drop), subkeys: BackupSettings::KEYS },
    Key { name: "upgrade", check: |value| UpgradeSettings::read(value).map(drop), subkeys: UpgradeSettings::KEYS },
];

/// A renamed key. The old name works for one minor version, with a warning.
pub struct Deprecated {
    pub name: &'static str,
    pub replacement: &'static str,
    /// The version that no longer reads the old name.
    pub removed_in: &'static str,
}

pub const DEPRECATED: &[Deprecated] = &[];

// Checks of values; the error describes what is allowed.

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

fn key_256(value: &Value) -> Result<(), &'static str> {
    let is_valid = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_allowed = |text: &str| is_valid(text) || SecretReference::parse(text).is_some();
    value.as_str().is_some_and(is_allowed).then_some(()).ok_or("64 hexadecimal digits as written by setup")
}
