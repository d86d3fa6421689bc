//! Makes a minisign key. A package of its own, so that `scripts/release keygen` needs no build of Leoflow.

use minisign::KeyPair;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a secret key without a password, and its public key beside it. The error is a message for the user.
pub fn generate(path: &Path) -> Result<(), String> {
    let public_path = PathBuf::from(format!("{}.pub", path.display()));
    let pair = KeyPair::generate_unencrypted_keypair().map_err(|error| error.to_string())?;
    let secret = pair.sk.to_box(Some("leoflow release key")).map_err(|error| error.to_string())?.into_string();
    let public = pair.pk.to_box().map_err(|error| error.to_string())?.into_string();
    write_new(path, &secret, 0o600)?;
    write_new(&public_path, &public, 0o644)
}

/// Creates a file; never overwrites an existing one, which could be a key in use.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("{}: {error}", path.display()))
}
