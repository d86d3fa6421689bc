//! A supervisor that takes over from the one before, as in an upgrade.

pub(crate) mod change;
pub(crate) mod handover;
pub(crate) mod resources;
pub(crate) mod startup;
