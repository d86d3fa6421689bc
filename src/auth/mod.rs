//! Who may come in: passwords, tokens, throttling; and the key that keeps secrets at rest.

pub mod cipher;
pub mod password;
pub mod throttle;
pub mod token;
