//! A supervisor that takes over from the previous one, as in an upgrade.

pub(crate) mod handover;
pub(crate) mod resources;
pub(crate) mod startup;
