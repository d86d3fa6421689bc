//! Public keys that backups are encrypted to, and references to secrets stored elsewhere.
//!
//! <https://age-encryption.org/v1>

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A public key: `age1…`, or `ssh-ed25519 …` as in a `.pub` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    /// Parses a public key; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let recipient = Self(text.to_owned());
        recipient.as_age().map(|_| recipient)
    }

    pub fn as_age(&self) -> Option<Box<dyn age::Recipient + Send>> {
        if self.0.starts_with("ssh-ed25519 ") {
            return age::ssh::Recipient::from_str(&self.0).ok().map(|key| Box::new(key) as Box<_>);
        }
        age::x25519::Recipient::from_str(&self.0).ok().map(|key| Box::new(key) as Box<_>)
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
        let key = age::x25519::Identity::generate();
        let public = key.to_public().to_string();
        assert_eq!(Recipient::parse(&format!(" {public}\n")).unwrap().to_string(), public);
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN ada@laptop";
        assert!(Recipient::parse(ssh).is_some());
        use age::secrecy::ExposeSecret;
        let private = key.to_string();
        for wrong in ["", "age1abc", "ssh-ed25519 AAAA", "ssh-rsa AAAA", "a passphrase", private.expose_secret()] {
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
