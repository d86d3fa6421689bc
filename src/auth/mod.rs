//! Who may come in: passwords, tokens, throttling; the key that keeps secrets at rest, and hiding them from sight.

pub mod cipher;
pub mod masking;
pub mod password;
pub mod throttle;
pub mod token;
