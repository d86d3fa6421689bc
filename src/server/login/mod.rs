//! Login and logout, and the tokens that requests present.

pub(crate) mod auth;
pub(crate) mod credentials;
pub(crate) mod logins;
pub(crate) mod revoked;
pub(crate) mod tokens;
