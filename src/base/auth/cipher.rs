//! Encrypts secrets at rest: XChaCha20-Poly1305 with the instance's key. A sealed value is bound to its place, such as
//! `variable/my_key` (the associated data), so one row's secret cannot be moved to another row.

use crate::sys::random;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

/// First byte of a sealed value: its format.
const FORMAT: u8 = 1;
const NONCE_LENGTH: usize = 24;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    #[error("the encryption key is not 64 hexadecimal digits")]
    BadKey,
    #[error("cannot decrypt a stored secret, because the encryption key does not match or the value was altered")]
    CannotOpen,
}

#[derive(Clone)]
pub struct Cipher(XChaCha20Poly1305);

impl Cipher {
    /// `key` is 64 hexadecimal digits, as in `config.yaml`.
    pub fn new(key: &str) -> Result<Self, CipherError> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(key, &mut bytes).map_err(|_| CipherError::BadKey)?;
        Ok(Self(XChaCha20Poly1305::new(&Key::from(bytes))))
    }

    /// Encrypts `secret` for `place`.
    pub fn seal(&self, place: &str, secret: &str) -> Vec<u8> {
        let nonce = random::bytes::<NONCE_LENGTH>();
        let payload = Payload { msg: secret.as_bytes(), aad: place.as_bytes() };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).expect("the size is below the limit of the cipher");
        [&[FORMAT][..], &nonce, &sealed].concat()
    }

    /// Decrypts a secret that was sealed for `place`.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<String, CipherError> {
        let (format, body) = sealed.split_first().ok_or(CipherError::CannotOpen)?;
        let (nonce, sealed) = body.split_first_chunk::<NONCE_LENGTH>().ok_or(CipherError::CannotOpen)?;
        if *format != FORMAT {
            return Err(CipherError::CannotOpen);
        }
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let opened = self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| CipherError::CannotOpen)?;
        String::from_utf8(opened).map_err(|_| CipherError::CannotOpen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_unaltered_with_its_key_and_place() {
        let cipher = Cipher::new(&"ab".repeat(32)).unwrap();
        let sealed = cipher.seal("variable/a", "geheim");
        assert_eq!(cipher.open("variable/a", &sealed).unwrap(), "geheim");
        assert_eq!(cipher.open("variable/b", &sealed), Err(CipherError::CannotOpen));
        assert_eq!(Cipher::new(&"ac".repeat(32)).unwrap().open("variable/a", &sealed), Err(CipherError::CannotOpen));
        for index in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[index] ^= 1;
            assert!(cipher.open("variable/a", &touched).is_err(), "byte {index}");
            assert!(cipher.open("variable/a", &sealed[..index]).is_err(), "cut at {index}");
        }
        assert_ne!(sealed, cipher.seal("variable/a", "geheim"));
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        for bad in ["", "ab", &"xy".repeat(32), &"é".repeat(32)] {
            assert!(matches!(Cipher::new(bad), Err(CipherError::BadKey)), "{bad}");
        }
    }
}
