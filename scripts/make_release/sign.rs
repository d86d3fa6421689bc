//! minisign signatures with the publisher's key.

use super::{Outcome, write};
use leoflow::upgrade::release::manifest::SIGNATURE_SUFFIX;
use minisign::{PublicKey, SecretKey, SecretKeyBox};
use std::fs;
use std::io::Cursor;
use std::path::Path;

pub struct Key {
    secret: SecretKey,
    /// The public key, in the form that a build embeds.
    pub public: String,
}

impl Key {
    /// Loads a secret key. Its password, if it has one, comes from `LEOFLOW_SIGN_PASSWORD`.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let boxed = || SecretKeyBox::from_string(&text).map_err(|error| error.to_string());
        let secret = match std::env::var("LEOFLOW_SIGN_PASSWORD") {
            Ok(password) => boxed()?.into_secret_key(Some(password)),
            Err(_) => boxed()?.into_unencrypted_secret_key(),
        };
        let secret = secret.map_err(|error| format!("{}: {error}", path.display()))?;
        let public = PublicKey::from_secret_key(&secret).map_err(|error| error.to_string())?;
        Ok(Self { secret, public: public.to_base64() })
    }

    /// Writes the signature next to the file. Signatures are not deterministic.
    pub fn sign(&self, path: &Path) -> Outcome<()> {
        sign_by(&[self], path)
    }

    fn signature(&self, name: &str, content: &[u8]) -> Outcome<String> {
        let comment = format!("leoflow {name}");
        let signed = minisign::sign(None, &self.secret, Cursor::new(content), Some(&comment), Some("leoflow release"));
        Ok(signed.map_err(|error| error.to_string())?.into_string())
    }
}

/// Writes the signatures of these keys into one file next to the signed file. Programs that expect one signature read
/// the first.
pub fn sign_by(keys: &[&Key], path: &Path) -> Outcome<()> {
    let content = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = String::new();
    for key in keys {
        text.push_str(&key.signature(&name, &content)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    write(&path.with_file_name(format!("{name}{SIGNATURE_SUFFIX}")), text.as_bytes())
}

pub fn public_key(path: &Path) -> Outcome<String> {
    Ok(Key::load(path)?.public)
}
