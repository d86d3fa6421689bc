//! The admin's password. Only its argon2id hash is stored.

use crate::sys::random;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

/// 32 characters that cannot be confused with one another; each carries 5 bits.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const GROUPS: usize = 4;
const GROUP_LENGTH: usize = 4;

/// Memory in KiB, passes and lanes: the first choice of OWASP's password storage cheat sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

#[derive(Debug, thiserror::Error)]
#[error("failed to hash the password: {0}")]
pub struct HashError(#[from] argon2::password_hash::Error);

/// Minimum length of a chosen password, characters: NIST SP 800-63B, 5.1.1.2.
pub(crate) const SHORTEST: usize = 8;
/// Maximum length, bytes: hashing a huge password would let an attacker burn CPU.
pub const LONGEST: usize = 1024;

/// Why a new password is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum Unacceptable {
    #[error("the password must have at least {SHORTEST} characters")]
    TooShort,
    #[error("the password must have at most {LONGEST} bytes")]
    TooLong,
    #[error("the password must not contain control characters")]
    ControlCharacter,
}

/// Checks a new password.
pub fn acceptable(password: &str) -> Result<(), Unacceptable> {
    match password {
        _ if password.chars().count() < SHORTEST => Err(Unacceptable::TooShort),
        _ if password.len() > LONGEST => Err(Unacceptable::TooLong),
        _ if password.chars().any(char::is_control) => Err(Unacceptable::ControlCharacter),
        _ => Ok(()),
    }
}

/// True if a hash uses another algorithm, or weaker parameters than this release.
pub fn is_outdated(stored: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(stored) else { return false };
    let number = |name: &str| parsed.params.get_decimal(name).unwrap_or(0);
    parsed.algorithm.as_str() != "argon2id" || number("m") < MEMORY_KIB || number("t") < PASSES || number("p") < LANES
}

/// Generates a password of 80 bits that is easy to read and type: `k7mf-3qxa-p9tz-w2hd`.
pub fn generate() -> String {
    let bytes = random::bytes::<{ GROUPS * GROUP_LENGTH }>();
    let letters: Vec<char> = bytes.iter().map(|byte| ALPHABET[usize::from(byte % 32)] as char).collect();
    letters.chunks(GROUP_LENGTH).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Hashes a password to a PHC string. Takes some 20 ms and 19 MiB, by design.
pub fn hash(password: &str) -> Result<String, HashError> {
    Ok(hasher().hash_password_with_salt(password.as_bytes(), &random::bytes::<16>())?.to_string())
}

/// True if `password` matches the hash. As slow as `hash`, even for a hash that cannot be parsed.
pub fn verify(password: &str, stored: &str) -> bool {
    match PasswordHash::new(stored) {
        Ok(parsed) => hasher().verify_password(password.as_bytes(), &parsed).is_ok(),
        Err(_) => {
            // Hashes anyway: the response time must not reveal that there is no valid hash.
            let _ = hasher().hash_password_with_salt(password.as_bytes(), &[0; 16]);
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
    fn a_weaker_hash_is_outdated() {
        assert!(!is_outdated(&hash("secret").unwrap()));
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8 * 1024, 1, 1, None).unwrap());
        let weak = weak.hash_password_with_salt(b"secret", &[7; 16]).unwrap().to_string();
        assert!(verify("secret", &weak) && is_outdated(&weak), "{weak}");
    }

    #[test]
    fn a_chosen_password_has_length_limits() {
        assert!(acceptable("12345678").is_ok() && acceptable("üüüüüüüü").is_ok());
        for bad in ["1234567", "", "with\nbreak", &"x".repeat(1025)] {
            assert!(acceptable(bad).is_err(), "{bad:?}");
        }
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
