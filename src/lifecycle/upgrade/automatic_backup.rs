//! Automatic backups of a home with a history of upgrades.

use super::UpgradeError;
use super::rollback::history;
use crate::backup::create::Source;
use crate::backup::create::automatic::Automatic;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Reporter;
use leoflow_postgres::Access;

/// The parameters of an automatic backup, which keeps the backups that a rollback needs. `version` is that of the
/// running program.
pub fn automatic_backup<'a>(
    home: &'a Home,
    access: &'a Access,
    config: &'a Config,
    version: &'a str,
    reporter: &'a dyn Reporter,
) -> Result<Automatic<'a>, UpgradeError> {
    let pinned =
        history::rollback_backups(home).map_err(|source| UpgradeError::Read { path: home.upgrade(), source })?;
    Ok(Automatic { source: Source { home, access, config, version, reporter }, pinned })
}
