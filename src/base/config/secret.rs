//! A value of the settings that may be secret.

use super::SecretReference;
use super::recipient::SecretError;
use crate::sys::env_vars;
use serde::{Deserialize, Deserializer, de};

/// A value that may be secret: itself, or a reference to where it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl<'de> Deserialize<'de> for Secret {
    /// An error does not show the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Text(String),
            Other(de::IgnoredAny),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Text(text) => Ok(Self(text)),
            Raw::Other(_) => Err(de::Error::custom("a URL, secret, key or password is not text; put it in quotes")),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl Secret {
    /// Reads the value; the error says why its reference cannot be read.
    pub fn read(&self) -> Result<String, SecretError> {
        match SecretReference::parse(&self.0) {
            Some(reference) => reference.read(env_vars::text).map(|text| text.trim().to_owned()),
            None => Ok(self.0.clone()),
        }
    }

    /// True for a reference, whose value is checked only when it is used.
    pub(super) fn is_reference(&self) -> bool {
        SecretReference::parse(&self.0).is_some()
    }

    /// The text in the settings: the value, or the reference.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}
