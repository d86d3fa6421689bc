//! Login and logout.

pub(crate) mod auth;
pub(crate) mod logins;
pub(crate) mod revoked;
