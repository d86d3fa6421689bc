//! Whether a manifest is by whoever makes our releases: minisign, with the key that this program was built
//! with.

use minisign_verify::{PublicKey, Signature};

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("this is a development build: it has no key to check a release with")]
    NoKey,
    #[error("the key that this program was built with is no minisign key: {0}")]
    BadKey(String),
    #[error("the signature cannot be read: {0}")]
    Unreadable(String),
    #[error("it is not signed by the key that this program trusts, or was changed afterwards")]
    Wrong,
}

/// `key` is the second line of minisign's `.pub` file.
pub fn verify(key: Option<&str>, content: &[u8], signature: &str) -> Result<(), SignatureError> {
    let key = PublicKey::from_base64(key.ok_or(SignatureError::NoKey)?.trim())
        .map_err(|error| SignatureError::BadKey(error.to_string()))?;
    let signature = Signature::decode(signature).map_err(|error| SignatureError::Unreadable(error.to_string()))?;
    // Only the prehashed kind: it is what `minisign` makes, and it covers the trusted comment.
    key.verify(content, &signature, false).map_err(|_| SignatureError::Wrong)
}
