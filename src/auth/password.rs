//! The admin's password. Only its argon2id hash is kept.

use crate::sys::random;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

/// 32 characters that cannot be taken for one another, so each carries 5 bits.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const GROUPS: usize = 4;
const GROUP_LENGTH: usize = 4;

/// Memory in KiB, passes and lanes: the first choice of OWASP's password storage cheat sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

#[derive(Debug, thiserror::Error)]
#[error("the password hash cannot be made: {0}")]
pub struct HashError(String);

/// A new password of 80 bits, made to be read and typed: `k7mf-3qxa-p9tz-w2hd`.
pub fn generate() -> String {
    let bytes = random::bytes::<{ GROUPS * GROUP_LENGTH }>();
    let letters: Vec<char> = bytes.iter().map(|byte| ALPHABET[usize::from(byte % 32)] as char).collect();
    letters.chunks(GROUP_LENGTH).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

fn hasher() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| HashError(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash as a PHC string. Takes some 20 ms and 19 MiB, by design.
pub fn hash(password: &str) -> Result<String, HashError> {
    let salt = random::bytes::<16>();
    let hash =
        hasher()?.hash_password_with_salt(password.as_bytes(), &salt).map_err(|error| HashError(error.to_string()))?;
    Ok(hash.to_string())
}

/// Whether `password` is the one. As slow as `hash`, also for a hash that cannot be read.
pub fn verify(password: &str, stored: &str) -> bool {
    let Ok(hasher) = hasher() else { return false };
    match PasswordHash::new(stored) {
        Ok(parsed) => hasher.verify_password(password.as_bytes(), &parsed).is_ok(),
        Err(_) => {
            // The time it takes must not tell that there is no password.
            let _ = hasher.hash_password_with_salt(password.as_bytes(), &[0; 16]);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_is_long_readable_and_new_each_time() {
        let (one, two) = (generate(), generate());
        assert_ne!(one, two);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [4, 4, 4, 4]);
        assert!(one.bytes().all(|b| b == b'-' || ALPHABET.contains(&b)));
    }

    #[test]
    fn only_the_password_itself_verifies() {
        let stored = hash("secret-ü").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify("secret-ü", &stored));
        assert!(!verify("secret-u", &stored));
        assert!(!verify("", &stored));
        assert!(!verify("secret-ü", "not a hash"));
        assert_ne!(stored, hash("secret-ü").unwrap(), "salted");
    }
}
