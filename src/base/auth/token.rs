//! Access tokens: JSON Web Tokens (RFC 7519) with exactly one algorithm, HMAC-SHA-256. The header is compared, not
//! interpreted, which rules out algorithm confusion.

use crate::sys::random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How long a login lasts. A token that claims more is accepted for this long.
pub const LIFETIME_SECONDS: i64 = 24 * 60 * 60;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Bytes; longer tokens are rejected.
const MAX_LENGTH: usize = 4096;
/// Seconds by which `iat` may be in the future: the clock may have been set back since.
const CLOCK_LEEWAY: i64 = 60;
/// Length of a password fingerprint.
const FINGERPRINT_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Subject: the admin's e-mail.
    pub sub: String,
    /// Issued at and expires at, seconds since the Unix epoch.
    pub iat: i64,
    pub exp: i64,
    /// Distinguishes tokens of the same second; older releases wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// A password reset raises the instance's epoch, which invalidates all earlier tokens.
    pub epoch: u64,
    /// Fingerprint of the password hash that was in effect. Earlier builds wrote none; their tokens, which an upgrade
    /// must not end, expire within `LIFETIME_SECONDS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The user of this machine whose browser logged in. Browsers send cookies to all ports of a host, so another
    /// user's server on `localhost` sees this token: only requests of this user are accepted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// The login settings that a token is bound to: it ends when one of them changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    epoch: u64,
    password: String,
}

/// Who may present a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// Anyone who has it: a token for programs, or the session of a browser on another machine.
    Any,
    /// Only processes of this user of this machine.
    Uid(u32),
}

impl Claims {
    pub fn bearer(&self) -> Bearer {
        self.uid.map_or(Bearer::Any, Bearer::Uid)
    }
}

/// Signs and verifies tokens with the instance's secret.
pub struct Signer {
    key: Vec<u8>,
}

impl Signer {
    pub fn new(secret: &str) -> Self {
        Self { key: secret.as_bytes().to_vec() }
    }

    /// Binds tokens to the epoch and the password hash. Only a keyed fingerprint of the hash is put into tokens, because
    /// anyone may read a token's content.
    pub fn binding(&self, epoch: u64, password_hash: &str) -> Binding {
        // The signed text of a token has no line break, so no fingerprint is a signature.
        let mac = self.mac(&format!("password hash\n{password_hash}")).finalize().into_bytes();
        Binding { epoch, password: BASE64.encode(&mac[..FINGERPRINT_BYTES]) }
    }

    /// The hash of an API token's text. It depends on the epoch, so a password reset ends the token.
    pub(super) fn api_token_hash(&self, epoch: u64, text: &str) -> String {
        BASE64.encode(self.mac(&format!("api token\n{epoch}\n{text}")).finalize().into_bytes())
    }

    /// Identifies this key and an epoch.
    pub(super) fn api_token_key(&self, epoch: u64) -> String {
        let mac = self.mac(&format!("api token key\n{epoch}")).finalize().into_bytes();
        BASE64.encode(&mac[..FINGERPRINT_BYTES])
    }

    pub fn issue(&self, sub: &str, bearer: Bearer, binding: &Binding, now: i64) -> String {
        let uid = match bearer {
            Bearer::Any => None,
            Bearer::Uid(uid) => Some(uid),
        };
        let jti = Some(BASE64.encode(random::bytes::<12>()));
        let Binding { epoch, password } = binding.clone();
        let (sub, exp, password) = (sub.to_owned(), now + LIFETIME_SECONDS, Some(password));
        self.sign(&Claims { sub, iat: now, exp, jti, epoch, password, uid })
    }

    fn sign(&self, claims: &Claims) -> String {
        // Plain strings and numbers always serialise.
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(payload));
        let signature = BASE64.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Verifies a token; returns its claims if the signature is ours, it has not expired, and neither the epoch nor the
    /// password has changed since.
    pub fn check(&self, token: &str, binding: &Binding, now: i64) -> Option<Claims> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        self.mac(signed).verify_slice(&BASE64.decode(signature).ok()?).ok()?;
        if header != BASE64.encode(HEADER) {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
        let end = claims.exp.min(claims.iat.saturating_add(LIFETIME_SECONDS));
        let is_current = claims.iat <= now.saturating_add(CLOCK_LEEWAY) && now < end;
        let is_bound = claims.epoch == binding.epoch
            && claims.password.as_ref().is_none_or(|password| *password == binding.password);
        (is_bound && is_current).then_some(claims)
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(text.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_an_unexpired_token_of_this_epoch() {
        let signer = Signer::new("secret");
        let binding = signer.binding(3, "hash");
        let token = signer.issue("admin@x", Bearer::Any, &binding, 1000);
        assert_eq!(signer.check(&token, &binding, 1000).unwrap().sub, "admin@x");
        assert!(signer.check(&token, &signer.binding(4, "hash"), 1000).is_none(), "after a password reset");
        assert!(signer.check(&token, &binding, 1000 + LIFETIME_SECONDS).is_none(), "expired");
        let other = Signer::new("other");
        assert!(other.check(&token, &other.binding(3, "hash"), 1000).is_none(), "another instance's");
    }

    #[test]
    fn another_password_hash_ends_a_token() {
        let signer = Signer::new("secret");
        let (old, new) = (signer.binding(1, "old"), signer.binding(1, "new"));
        let token = signer.issue("admin@x", Bearer::Any, &old, 1000);
        assert!(signer.check(&token, &old, 1000).is_some() && signer.check(&token, &new, 1000).is_none());
        assert_ne!(old.password, Signer::new("other").binding(1, "old").password, "keyed, so hashes cannot be tried");
        let claims = Claims { password: None, ..signer.check(&token, &old, 1000).unwrap() };
        assert!(signer.check(&signer.sign(&claims), &new, 1000).is_some(), "issued by an earlier build");
    }

    #[test]
    fn a_token_lasts_no_longer_than_a_login() {
        let signer = Signer::new("secret");
        let is_valid = |iat: i64, exp: i64, now: i64| {
            let claims = Claims { sub: "admin@x".into(), iat, exp, jti: None, epoch: 1, password: None, uid: None };
            signer.check(&signer.sign(&claims), &signer.binding(1, "hash"), now).is_some()
        };
        assert!(is_valid(1000, i64::MAX, 1000 + LIFETIME_SECONDS - 1));
        assert!(!is_valid(1000, i64::MAX, 1000 + LIFETIME_SECONDS));
        assert!(!is_valid(1000, 2000, 2000));
        assert!(is_valid(1000, 2000, 1000 - CLOCK_LEEWAY) && !is_valid(i64::MAX, i64::MAX, 1000), "issued later");
    }

    #[test]
    fn refuses_an_altered_or_unsigned_token() {
        let signer = Signer::new("secret");
        let binding = signer.binding(1, "hash");
        let token = signer.issue("admin@x", Bearer::Uid(1), &binding, 1000);
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(bytes).unwrap();
            // The last character of a base64 text may carry unused bits; decoding refuses those.
            assert!(signer.check(&touched, &binding, 1000).is_none(), "character {index}");
        }
        let payload = token.split('.').nth(1).unwrap();
        let unsigned_header = BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for forged in [
            format!("{unsigned_header}.{payload}."),
            format!("{unsigned_header}.{payload}"),
            String::new(),
            "...".into(),
            "a".repeat(9999),
        ] {
            assert!(signer.check(&forged, &binding, 1000).is_none(), "{forged:.40}");
        }
    }
}
