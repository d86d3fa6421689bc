//! Variables, connections, and the encryption of secrets.

pub mod connections;
pub mod encryption_key;
pub mod revoked_tokens;
pub mod secrets;
pub mod variables;
