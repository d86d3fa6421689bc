//! The context that all steps of an upgrade share, and the notes that they collect.

use super::host::Host;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Reporter;
use leoflow_postgres::Access;
use leoflow_postgres::totals::Answer;
use std::time::{Duration, Instant};

/// The context of an upgrade's steps.
pub struct UpgradeContext<'a> {
    pub home: &'a Home,
    pub access: Access,
    pub config: &'a Config,
    /// The version of the running program.
    pub own_version: &'a str,
    pub host: Host,
    pub reporter: &'a dyn Reporter,
    /// True with `--no-rollback`: a failed release stays for inspection.
    pub no_rollback: bool,
    pub notes: Notes,
}

/// Notes for the final report.
#[derive(Debug, Default)]
pub struct Notes {
    pub(super) details: Vec<String>,
    /// The commit that the new release was built from.
    pub(super) commit: Option<String>,
    /// The answers of the invariants before the schema was changed.
    pub(super) totals: Vec<Answer>,
    /// When requests began to wait.
    pub(super) paused: Option<Instant>,
    /// How long requests waited.
    pub(super) pause: Option<Duration>,
}
