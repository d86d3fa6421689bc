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
    /// The user of this machine whose browser logged in. Browsers send cookies to all ports of a host, so another
    /// user's server on `localhost` sees this token: only requests of this user are accepted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
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

    pub fn issue(&self, sub: &str, bearer: Bearer, epoch: u64, now: i64) -> String {
        let uid = match bearer {
            Bearer::Any => None,
            Bearer::Uid(uid) => Some(uid),
        };
        let jti = Some(BASE64.encode(random::bytes::<12>()));
        let claims = Claims { sub: sub.to_owned(), iat: now, exp: now + LIFETIME_SECONDS, jti, epoch, uid };
        self.sign(&claims)
    }

    fn sign(&self, claims: &Claims) -> String {
        // Plain strings and numbers always serialise.
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(payload));
        let signature = BASE64.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Verifies a token; returns its claims if the signature is ours, it has not expired, and its epoch matches.
    pub fn check(&self, token: &str, epoch: u64, now: i64) -> Option<Claims> {
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
        (claims.epoch == epoch && is_current).then_some(claims)
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
        let token = signer.issue("admin@x", Bearer::Any, 3, 1000);
        assert_eq!(signer.check(&token, 3, 1000).unwrap().sub, "admin@x");
        assert!(signer.check(&token, 4, 1000).is_none(), "after a password reset");
        assert!(signer.check(&token, 3, 1000 + LIFETIME_SECONDS).is_none(), "expired");
        assert!(Signer::new("other").check(&token, 3, 1000).is_none(), "another instance's");
    }

    #[test]
    fn a_token_lasts_no_longer_than_a_login() {
        let signer = Signer::new("secret");
        let is_valid = |iat: i64, exp: i64, now: i64| {
            let claims = Claims { sub: "admin@x".into(), iat, exp, jti: None, epoch: 1, uid: None };
            signer.check(&signer.sign(&claims), 1, now).is_some()
        };
        assert!(is_valid(1000, i64::MAX, 1000 + LIFETIME_SECONDS - 1));
        assert!(!is_valid(1000, i64::MAX, 1000 + LIFETIME_SECONDS));
        assert!(!is_valid(1000, 2000, 2000));
        assert!(is_valid(1000, 2000, 1000 - CLOCK_LEEWAY) && !is_valid(i64::MAX, i64::MAX, 1000), "issued later");
    }

    #[test]
    fn refuses_an_altered_or_unsigned_token() {
        let signer = Signer::new("secret");
        let token = signer.issue("admin@x", Bearer::Uid(1), 1, 1000);
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(bytes).unwrap();
            // The last character of a base64 text may carry unused bits; decoding refuses those.
            assert!(signer.check(&touched, 1, 1000).is_none(), "character {index}");
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
            assert!(signer.check(&forged, 1, 1000).is_none(), "{forged:.40}");
        }
    }
}
