//! Who a backup is encrypted to, as age has them, and a passphrase that is kept elsewhere.
//!
//! <https://age-encryption.org/v1>

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A public key: `age1…`, or `ssh-ed25519 …` as in a `.pub` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    /// `None` for what is no public key of these kinds.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let recipient = Self(text.to_owned());
        recipient.of_age().map(|_| recipient)
    }

    pub fn of_age(&self) -> Option<Box<dyn age::Recipient + Send>> {
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

/// Where a secret is, which is never in config.yaml itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    File(PathBuf),
    /// A variable of the environment that Leoflow runs in.
    Variable(String),
}

impl SecretPlace {
    /// `file:/a/path`, `env:NAME`.
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

impl fmt::Display for SecretPlace {
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
    fn public_keys_are_taken_and_nothing_else() {
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
    fn a_secret_is_named_by_its_place() {
        assert_eq!(SecretPlace::parse("file:/a b").unwrap().to_string(), "file:/a b");
        assert_eq!(SecretPlace::parse("env:A_1"), Some(SecretPlace::Variable("A_1".to_owned())));
        for wrong in ["swordfish", "file:relative", "env:", "env:1A", "env:A B", "http://x"] {
            assert_eq!(SecretPlace::parse(wrong), None, "{wrong}");
        }
    }
}
