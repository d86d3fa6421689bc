//! Verifies a manifest's minisign signature. Trusted are the key that this program was built with, and keys that a
//! verified manifest has announced.

use super::manifest::Manifest;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use minisign_verify::{PublicKey, Signature};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("this development build has no key to verify a release")]
    NoKey,
    #[error("a trusted key is not a valid minisign key: {0}")]
    BadKey(String),
    #[error("invalid signature file: {0}")]
    Unreadable(String),
    #[error("it is not signed by a key that this program trusts, or was modified after signing")]
    Wrong,
}

/// Number of lines of one signature; a file may contain several signatures.
const LINES_PER_SIGNATURE: usize = 4;
/// Maximum number of stored keys; the oldest are dropped.
const MAX_ANNOUNCED: usize = 10;
const SIZE_LIMIT: u64 = 64 * 1024;

/// The keys that this home trusts: `built_in` (`None` in a development build) and the announced ones. Each is the
/// second line of a minisign `.pub` file.
pub fn trusted(home: &Home, built_in: Option<&str>) -> Vec<String> {
    // Trust in the stored keys derives from the built-in key. A program without one trusts no stored key.
    let announced: Vec<String> = files::read_json_or_default(&home.trusted_keys(), SIZE_LIMIT).unwrap_or_default();
    built_in.into_iter().map(str::to_owned).chain(announced.into_iter().filter(|_| built_in.is_some())).collect()
}

/// Stores the key that a verified manifest announces, because later manifests may be signed by that key alone.
pub fn remember(home: &Home, manifest: &Manifest, built_in: Option<&str>) -> io::Result<()> {
    let Some(next_key) =
        manifest.next_public_key.as_ref().filter(|next_key| PublicKey::from_base64(next_key.trim()).is_ok())
    else {
        return Ok(());
    };
    if trusted(home, built_in).contains(next_key) {
        return Ok(());
    }
    let mut announced: Vec<String> = files::read_json_or_default(&home.trusted_keys(), SIZE_LIMIT)?;
    announced.push(next_key.clone());
    let excess = announced.len().saturating_sub(MAX_ANNOUNCED);
    announced.drain(..excess);
    files::create_private_dir(&home.upgrade())?;
    files::write_atomic(&home.trusted_keys(), &serde_json::to_vec_pretty(&announced)?, 0o600)
}

/// Succeeds when one of the signatures is by one of the keys.
pub fn verify(keys: &[String], content: &[u8], signatures: &str) -> Result<(), SignatureError> {
    if keys.is_empty() {
        return Err(SignatureError::NoKey);
    }
    let lines: Vec<&str> = signatures.lines().filter(|line| !line.trim().is_empty()).collect();
    // A signature in a format that this version cannot read does not invalidate the others.
    let decoded: Vec<_> = lines.chunks(LINES_PER_SIGNATURE).map(|block| Signature::decode(&block.join("\n"))).collect();
    let readable: Vec<&Signature> = decoded.iter().flatten().collect();
    if readable.is_empty() {
        let reason = decoded.iter().find_map(|signature| signature.as_ref().err());
        return Err(SignatureError::Unreadable(reason.map_or("the file is empty".to_owned(), ToString::to_string)));
    }
    for key in keys {
        let key = PublicKey::from_base64(key.trim()).map_err(|error| SignatureError::BadKey(error.to_string()))?;
        // `false` allows only prehashed signatures, which `minisign` creates and which cover the trusted comment.
        if readable.iter().any(|signature| key.verify(content, signature, false).is_ok()) {
            return Ok(());
        }
    }
    Err(SignatureError::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::KeyPair;
    use std::io::Cursor;

    fn pair() -> KeyPair {
        KeyPair::generate_unencrypted_keypair().unwrap()
    }

    fn signature(pair: &KeyPair, content: &[u8]) -> String {
        minisign::sign(None, &pair.sk, Cursor::new(content), None, None).unwrap().into_string()
    }

    #[test]
    fn one_valid_signature_by_a_trusted_key_is_enough() {
        let (old, new, other) = (pair(), pair(), pair());
        let key = |pair: &KeyPair| pair.pk.to_base64();
        let content = b"releases";
        let both = signature(&old, content) + &signature(&new, content);
        for keys in [vec![key(&old)], vec![key(&new)], vec![key(&other), key(&new)]] {
            verify(&keys, content, &both).unwrap();
        }
        assert!(matches!(verify(&[key(&other)], content, &both), Err(SignatureError::Wrong)));
        assert!(matches!(verify(&[key(&old)], b"others", &both), Err(SignatureError::Wrong)));
        assert!(matches!(verify(&[], content, &both), Err(SignatureError::NoKey)));
        for text in ["", "<html>\n</html>", &both[..60]] {
            assert!(matches!(verify(&[key(&old)], content, text), Err(SignatureError::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn trusts_a_key_announced_by_a_trusted_key() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (built_in, next_key) = (pair().pk.to_base64(), pair().pk.to_base64());
        assert_eq!(trusted(&home, Some(&built_in)), std::slice::from_ref(&built_in));
        let manifest = |next_key: Option<&str>| Manifest {
            schema: 1,
            format: 1,
            issued_at: None,
            expires_at: None,
            next_public_key: next_key.map(str::to_owned),
            releases: Vec::new(),
        };
        for announced in [None, Some("no key"), Some(next_key.as_str()), Some(next_key.as_str())] {
            remember(&home, &manifest(announced), Some(&built_in)).unwrap();
        }
        assert_eq!(trusted(&home, Some(&built_in)), [built_in, next_key]);
        assert_eq!(trusted(&home, None), [""; 0]);
    }
}
