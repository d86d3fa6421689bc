//! Whether a manifest is by whoever makes our releases: minisign, with the key that this program was built with, or with one
//! that a manifest announced that was signed by it.

use super::manifest::Manifest;
use crate::home::Home;
use crate::sys::files;
use minisign_verify::{PublicKey, Signature};
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("this is a development build: it has no key to check a release with")]
    NoKey,
    #[error("a key that this program trusts is no minisign key: {0}")]
    BadKey(String),
    #[error("the signature cannot be read: {0}")]
    Unreadable(String),
    #[error("it is not signed by the key that this program trusts, or was changed afterwards")]
    Wrong,
}

/// Lines of one signature; a file may have several, one below the other.
const LINES: usize = 4;
/// Keys that were announced, the newest last.
const LIMIT: usize = 10;
const SIZE_LIMIT: u64 = 64 * 1024;

/// The keys that this home trusts: `built_in`, none in a development build, and those that were announced. Each is the second
/// line of minisign's `.pub` file.
pub fn trusted(home: &Home, built_in: Option<&str>) -> Vec<String> {
    // Only what a trusted key has announced is there; without a key of its own nothing was.
    let announced: Vec<String> = files::read_json_or_default(&path(home), SIZE_LIMIT).unwrap_or_default();
    built_in.into_iter().map(str::to_owned).chain(announced.into_iter().filter(|_| built_in.is_some())).collect()
}

/// Keeps the key that a verified manifest announces: the next releases may be signed by it alone.
pub fn remember(home: &Home, manifest: &Manifest, built_in: Option<&str>) -> io::Result<()> {
    let Some(next) = manifest.next_public_key.as_ref().filter(|next| PublicKey::from_base64(next.trim()).is_ok())
    else {
        return Ok(());
    };
    if trusted(home, built_in).contains(next) {
        return Ok(());
    }
    let mut announced: Vec<String> = files::read_json_or_default(&path(home), SIZE_LIMIT)?;
    announced.push(next.clone());
    let excess = announced.len().saturating_sub(LIMIT);
    announced.drain(..excess);
    files::create_private_dir(&home.upgrade())?;
    files::write_atomic(&path(home), &serde_json::to_vec_pretty(&announced)?, 0o600)
}

fn path(home: &Home) -> PathBuf {
    home.upgrade().join("trusted-keys.json")
}

/// True where one of the signatures is by one of the keys.
pub fn verify(keys: &[String], content: &[u8], signatures: &str) -> Result<(), SignatureError> {
    if keys.is_empty() {
        return Err(SignatureError::NoKey);
    }
    let lines: Vec<&str> = signatures.lines().filter(|line| !line.trim().is_empty()).collect();
    // What a later release adds and this one cannot read does not spoil the others.
    let decoded: Vec<_> = lines.chunks(LINES).map(|block| Signature::decode(&block.join("\n"))).collect();
    let all: Vec<&Signature> = decoded.iter().flatten().collect();
    if all.is_empty() {
        let reason = decoded.iter().find_map(|one| one.as_ref().err());
        return Err(SignatureError::Unreadable(reason.map_or("it is empty".to_owned(), ToString::to_string)));
    }
    for key in keys {
        let key = PublicKey::from_base64(key.trim()).map_err(|error| SignatureError::BadKey(error.to_string()))?;
        // Only the prehashed kind: it is what `minisign` makes, and it covers the trusted comment.
        if all.iter().any(|signature| key.verify(content, signature, false).is_ok()) {
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
    fn one_of_several_signatures_by_one_of_several_keys_is_enough() {
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
    fn a_key_is_trusted_once_a_trusted_one_has_announced_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (built_in, next) = (pair().pk.to_base64(), pair().pk.to_base64());
        assert_eq!(trusted(&home, Some(&built_in)), std::slice::from_ref(&built_in));
        let manifest = |next: Option<&str>| Manifest {
            schema: 1,
            format: 1,
            issued_at: None,
            expires_at: None,
            next_public_key: next.map(str::to_owned),
            releases: Vec::new(),
        };
        for announced in [None, Some("no key"), Some(next.as_str()), Some(next.as_str())] {
            remember(&home, &manifest(announced), Some(&built_in)).unwrap();
        }
        assert_eq!(trusted(&home, Some(&built_in)), [built_in, next]);
        assert_eq!(trusted(&home, None), [""; 0]);
    }
}
