//! API tokens: named tokens for programs, such as coding agents and scripts, which last longer than a login and can be
//! revoked. `api-tokens.json` in the home has their hashes; the tokens themselves are shown once and not stored.

use super::token::Signer;
use crate::config::{self, ConfigError, UpdateError};
use crate::home::Home;
use crate::sys::fs::files;
use crate::sys::{clock, random};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prefix of a token, by which people and secret scanners recognise it.
const PREFIX: &str = "leoflow_";
/// Longest lifetime.
pub const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Most tokens of an instance.
const MAX_TOKENS: usize = 100;
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    ReadOnly,
    /// Everything but creating other tokens.
    Full,
}

/// A token without its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiToken {
    pub name: String,
    pub scope: Scope,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// A keyed hash of the token's text.
    hash: String,
    /// Identifies the signing key and the session epoch that the token was made with.
    key: String,
}

impl ApiToken {
    fn is_current(&self, key: &str, now: Timestamp) -> bool {
        self.key == key && now < self.expires_at
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    #[error("invalid token name {0:?}: use up to 64 letters, digits, -, _ and ., and begin with a letter or a digit")]
    Name(String),
    #[error("a token named {0} exists")]
    Exists(String),
    #[error("there is no token named {0}")]
    Unknown(String),
    #[error("there are {MAX_TOKENS} tokens already, which is the most that an instance can have")]
    TooMany,
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("config.yaml has no jwt_secret")]
    NoKey,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Update(#[from] UpdateError),
}

/// The valid tokens of an instance.
pub struct ApiTokens(Vec<ApiToken>);

impl ApiTokens {
    /// Reads the tokens. Those made with another key, or before a password reset, are left out.
    pub fn read(path: &Path, signer: &Signer, epoch: u64) -> Result<Self, ApiTokenError> {
        let (key, now) = (signer.api_token_key(epoch), Timestamp::now());
        let mut tokens = read_file(path)?;
        tokens.retain(|token| token.is_current(&key, now));
        Ok(Self(tokens))
    }

    /// Returns the token with this text, if it is valid.
    pub fn find(&self, text: &str, signer: &Signer, epoch: u64) -> Option<&ApiToken> {
        if self.0.is_empty() || !text.starts_with(PREFIX) {
            return None;
        }
        let (hash, now) = (signer.api_token_hash(epoch, text), Timestamp::now());
        // The hash is keyed, so the time of a comparison tells nothing about a token.
        self.0.iter().find(|token| token.hash == hash && now < token.expires_at)
    }
}

/// Lists the valid tokens.
pub fn list(home: &Home) -> Result<Vec<ApiToken>, ApiTokenError> {
    let (signer, epoch) = key(home)?;
    Ok(ApiTokens::read(&home.api_tokens(), &signer, epoch)?.0)
}

/// Creates a token, which is valid for `lifetime`; returns it with its text.
pub fn create(home: &Home, name: &str, scope: Scope, lifetime: Duration) -> Result<(ApiToken, String), ApiTokenError> {
    let is_name_character = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || name.len() > 64 || !name.chars().all(is_name_character) {
        return Err(ApiTokenError::Name(name.to_owned()));
    }
    // The lock also keeps the key as it is.
    config::locked(home, || {
        let (signer, epoch) = key(home)?;
        let mut tokens = ApiTokens::read(&home.api_tokens(), &signer, epoch)?.0;
        if tokens.iter().any(|token| token.name == name) {
            return Err(ApiTokenError::Exists(name.to_owned()));
        }
        if tokens.len() >= MAX_TOKENS {
            return Err(ApiTokenError::TooMany);
        }
        let text = format!("{PREFIX}{}", BASE64.encode(random::bytes::<32>()));
        let created_at = clock::whole_second(Timestamp::now());
        let lifetime = SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::ZERO);
        let token = ApiToken {
            name: name.to_owned(),
            scope,
            created_at,
            expires_at: created_at.saturating_add(lifetime).unwrap_or(created_at),
            hash: signer.api_token_hash(epoch, &text),
            key: signer.api_token_key(epoch),
        };
        tokens.push(token.clone());
        write(home, &tokens)?;
        Ok((token, text))
    })
}

/// Removes a token, which ends it at once. Works with a damaged `config.yaml`, too.
pub fn revoke(home: &Home, name: &str) -> Result<(), ApiTokenError> {
    config::locked(home, || {
        let mut tokens = read_file(&home.api_tokens())?;
        let count = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == count {
            return Err(ApiTokenError::Unknown(name.to_owned()));
        }
        write(home, &tokens)
    })
}

/// The key of the tokens' hashes, and the session epoch.
fn key(home: &Home) -> Result<(Signer, u64), ApiTokenError> {
    let path = home.config();
    let loaded = config::load_with_secrets(&path)?.ok_or(UpdateError::Missing(path))?;
    let secret = loaded.config.jwt_secret.as_deref().ok_or(ApiTokenError::NoKey)?;
    Ok((Signer::new(secret), loaded.config.session_epoch))
}

fn read_file(path: &Path) -> Result<Vec<ApiToken>, ApiTokenError> {
    let tokens = files::read_json(path, MAX_FILE);
    Ok(tokens.map_err(|source| ApiTokenError::Read { path: path.to_owned(), source })?.unwrap_or_default())
}

fn write(home: &Home, tokens: &[ApiToken]) -> Result<(), ApiTokenError> {
    let path = home.api_tokens();
    // Plain strings and times always serialise.
    let text = serde_json::to_vec_pretty(tokens).unwrap_or_default();
    Ok(files::write_atomic(&path, &text, 0o600).map_err(|source| UpdateError::Io { path, source })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_token_ends_when_it_is_revoked_or_the_password_is_reset() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let (key, other_key) = ("ab".repeat(32), "cd".repeat(32));
        config::replace(&home, &format!("jwt_secret: '{key}'\nsession_epoch: 1\n")).unwrap();
        let (token, text) = create(&home, "agent", Scope::ReadOnly, DAY).unwrap();
        assert!(matches!(create(&home, "agent", Scope::Full, DAY), Err(ApiTokenError::Exists(_))));
        let scope = |key: &str, epoch: u64, text: &str| {
            let signer = Signer::new(key);
            let tokens = ApiTokens::read(&home.api_tokens(), &signer, epoch).unwrap();
            tokens.find(text, &signer, epoch).map(|token| token.scope)
        };
        assert_eq!(scope(&key, 1, &text), Some(Scope::ReadOnly));
        assert_eq!(scope(&key, 1, &format!("{text}x")), None);
        assert_eq!((scope(&key, 2, &text), scope(&other_key, 1, &text)), (None, None), "after a reset or a restore");
        let stored = std::fs::read_to_string(home.api_tokens()).unwrap();
        assert!(!stored.contains(&text) && stored.contains(&token.hash), "{stored}");
        assert_eq!(list(&home).unwrap().len(), 1);
        // Not replaced by an empty file.
        std::fs::write(home.api_tokens(), "{").unwrap();
        assert!(matches!(create(&home, "other", Scope::Full, DAY), Err(ApiTokenError::Read { .. })));
        assert!(matches!(revoke(&home, "agent"), Err(ApiTokenError::Read { .. })));
        std::fs::write(home.api_tokens(), stored).unwrap();
        std::fs::write(home.config(), "jwt_secret: [").unwrap();
        revoke(&home, "agent").unwrap();
        assert!(matches!(revoke(&home, "agent"), Err(ApiTokenError::Unknown(_))));
        assert_eq!(scope(&key, 1, &text), None);
    }

    #[test]
    fn an_expired_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let key = "ab".repeat(32);
        config::replace(&home, &format!("jwt_secret: '{key}'\n")).unwrap();
        let (_, text) = create(&home, "agent", Scope::Full, Duration::ZERO).unwrap();
        let signer = Signer::new(&key);
        assert!(ApiTokens::read(&home.api_tokens(), &signer, 1).unwrap().find(&text, &signer, 1).is_none());
        assert!(list(&home).unwrap().is_empty());
        for name in ["", "a b", "ü", "--x", &"x".repeat(65)] {
            assert!(matches!(create(&home, name, Scope::Full, DAY), Err(ApiTokenError::Name(_))), "{name}");
        }
    }
}
