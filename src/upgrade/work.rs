//! What every step of an upgrade needs, and what is noted on its way.

use super::host::Host;
use crate::config::Config;
use crate::home::Home;
use crate::home::progress::Reporter;
use crate::postgres::Access;
use std::time::{Duration, Instant};

/// Everything that every step needs.
pub struct Work<'a> {
    pub home: &'a Home,
    pub access: Access,
    pub config: &'a Config,
    /// Of the program that does it.
    pub own_version: &'a str,
    pub host: Host,
    pub reporter: &'a dyn Reporter,
    /// Whether a release that fails is left for inspection.
    pub no_rollback: bool,
    pub notes: Notes,
}

/// What is noted on the way, to be told at the end.
#[derive(Debug, Default)]
pub struct Notes {
    pub(super) details: Vec<String>,
    /// Of the new release's sources.
    pub(super) commit: Option<String>,
    /// Since when requests have had to wait, and for how long they had to.
    pub(super) paused: Option<Instant>,
    pub(super) pause: Option<Duration>,
}
