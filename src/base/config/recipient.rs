//! Public keys that backups are encrypted to, and references to secrets stored elsewhere.
//!
//! <https://age-encryption.org/v1>

use super::SIZE_LIMIT;
use crate::sys::fs::files;
use bech32::{FromBase32 as _, Variant};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A public key of `age-keygen`: `age1…`, which is an X25519 key in Bech32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    /// Parses a public key; `None` for anything else, also for a key of another kind, such as SSH.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (prefix, data, variant) = bech32::decode(text).ok()?;
        let bytes = Vec::from_base32(&data).ok()?;
        (prefix == "age" && variant == Variant::Bech32 && bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reference to a secret, or to the datastore's URL, that config.yaml does not contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretReference {
    File(PathBuf),
    /// An environment variable of the Leoflow process.
    Variable(String),
}

impl SecretReference {
    /// Parses `file:/a/path` or `env:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("file", path) if path.starts_with('/') => Some(Self::File(path.into())),
            ("env", name) => {
                let is_name = |name: &str| {
                    !name.is_empty()
                        && !name.starts_with(|c: char| c.is_ascii_digit())
                        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                };
                is_name(name).then(|| Self::Variable(name.to_owned()))
            }
            _ => None,
        }
    }

    /// Reads the text at the place; `variable` reads the environment.
    pub fn read(&self, variable: impl Fn(&str) -> Option<String>) -> Result<String, SecretError> {
        match self {
            Self::File(path) => files::read_text(path, SIZE_LIMIT)?.ok_or(SecretError::NoFile),
            Self::Variable(name) => variable(name).ok_or(SecretError::NoVariable),
        }
    }
}

/// A value of `config.yaml` that is stored elsewhere and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reference}: {source}")]
pub struct UnreadableSecret {
    pub(super) name: &'static str,
    pub(super) reference: SecretReference,
    pub(super) source: SecretError,
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("there is no such file")]
    NoFile,
    #[error("that variable is not set")]
    NoVariable,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its value is not {0}")]
    Value(&'static str),
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(name) => write!(f, "env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_public_keys_only() {
        let public = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        assert_eq!(Recipient::parse(&format!(" {public}\n")).unwrap().to_string(), public);
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN ada@laptop";
        let private = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        let altered = public.replace("t7r", "t7q");
        for wrong in ["", "age1abc", ssh, "ssh-rsa AAAA", "a passphrase", private, &altered, &public[..40]] {
            assert_eq!(Recipient::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parses_secret_references() {
        assert_eq!(SecretReference::parse("file:/a b").unwrap().to_string(), "file:/a b");
        assert_eq!(SecretReference::parse("env:A_1"), Some(SecretReference::Variable("A_1".to_owned())));
        for wrong in ["swordfish", "file:relative", "env:", "env:1A", "env:A B", "http://x"] {
            assert_eq!(SecretReference::parse(wrong), None, "{wrong}");
        }
    }
}
