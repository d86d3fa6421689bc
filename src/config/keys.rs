//! The table of keys: what each may hold. Everything that reads or checks the file goes by it.

use super::{BackupSettings, UpgradeSettings};
use crate::protocol::log;
use serde_yaml::Value;
use std::net::Ipv4Addr;

/// A key and what it may hold. `check` says what is allowed when the value is not.
pub struct Key {
    pub name: &'static str,
    pub check: fn(&Value) -> Result<(), Wrong>,
}

/// What is allowed where something else is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// The key inside the mapping, where it is that one's value.
    pub inner: Option<&'static str>,
    pub allowed: &'static str,
}

impl From<&'static str> for Wrong {
    fn from(allowed: &'static str) -> Self {
        Self { inner: None, allowed }
    }
}

impl Wrong {
    pub fn in_key(inner: &'static str, allowed: &'static str) -> Self {
        Self { inner: Some(inner), allowed }
    }
}

pub const KEYS: &[Key] = &[
    Key { name: "instance_name", check: |value| Ok(short_text(value)?) },
    Key { name: "workspace", check: |value| Ok(absolute_path(value)?) },
    Key { name: "port", check: |value| Ok(port(value)?) },
    Key { name: "host", check: |value| Ok(host(value)?) },
    Key { name: "admin_email", check: |value| Ok(email(value)?) },
    Key { name: "admin_password_hash", check: |value| Ok(argon2_hash(value)?) },
    Key { name: "session_epoch", check: |value| Ok(whole_number(value)?) },
    Key { name: "jwt_secret", check: |value| Ok(key_256(value)?) },
    Key { name: "encryption_key", check: |value| Ok(key_256(value)?) },
    Key { name: "python", check: |value| Ok(absolute_path(value)?) },
    Key { name: "max_map_length", check: |value| Ok(map_length(value)?) },
    Key { name: "log_level", check: |value| Ok(log_level(value)?) },
    Key { name: "backup", check: |value| BackupSettings::read(value).map(drop) },
    Key { name: "upgrade", check: |value| UpgradeSettings::read(value).map(drop) },
];

/// A key that has a new name. It goes on working, with a warning, for one minor version.
pub struct Deprecated {
    pub name: &'static str,
    pub replacement: &'static str,
    /// The version that no longer reads it.
    pub removed_in: &'static str,
}

pub const DEPRECATED: &[Deprecated] = &[];

fn short_text(value: &Value) -> Result<(), &'static str> {
    let allowed = "a name of 1 to 100 characters";
    let fits = |text: &str| (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    value.as_str().is_some_and(fits).then_some(()).ok_or(allowed)
}

fn absolute_path(value: &Value) -> Result<(), &'static str> {
    value.as_str().is_some_and(|text| text.starts_with('/')).then_some(()).ok_or("an absolute path")
}

fn port(value: &Value) -> Result<(), &'static str> {
    value.as_u64().is_some_and(|n| (1..=65535).contains(&n)).then_some(()).ok_or("a port number from 1 to 65535")
}

fn host(value: &Value) -> Result<(), &'static str> {
    let fits = |text: &str| text.parse().is_ok_and(|host: Ipv4Addr| !host.is_multicast() && !host.is_broadcast());
    value.as_str().is_some_and(fits).then_some(()).ok_or("an IPv4 address, as 127.0.0.1 or 0.0.0.0")
}

fn log_level(value: &Value) -> Result<(), &'static str> {
    let fits = |text: &str| log::level(text).is_some();
    value.as_str().is_some_and(fits).then_some(()).ok_or("error, warn, info, debug or trace")
}

fn email(value: &Value) -> Result<(), &'static str> {
    let fits = |text: &str| text.len() <= 254 && text.contains('@') && !text.contains(char::is_whitespace);
    value.as_str().is_some_and(fits).then_some(()).ok_or("an e-mail address")
}

fn argon2_hash(value: &Value) -> Result<(), &'static str> {
    value
        .as_str()
        .is_some_and(|text| text.starts_with("$argon2id$"))
        .then_some(())
        .ok_or("an argon2id hash, as setup writes it")
}

fn map_length(value: &Value) -> Result<(), &'static str> {
    value.as_u64().is_some_and(|n| (1..=1_000_000).contains(&n)).then_some(()).ok_or("a number from 1 to 1000000")
}

fn whole_number(value: &Value) -> Result<(), &'static str> {
    value.as_u64().map(|_| ()).ok_or("a whole number from 0")
}

fn key_256(value: &Value) -> Result<(), &'static str> {
    let fits = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    value.as_str().is_some_and(fits).then_some(()).ok_or("64 hexadecimal digits, as setup writes them")
}
