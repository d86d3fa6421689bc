//! Authentication (passwords, tokens, throttling), encryption of secrets at rest, and masking of secrets.

pub mod api_token;
pub mod cipher;
pub mod masking;
pub mod password;
pub mod throttle;
pub mod token;
