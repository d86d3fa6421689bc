//! Makes a release the installed one, and records the change.

use super::UpgradeError;
use super::facts::parse_version;
use super::rollback::history::{self, Change, Kind};
use crate::setup;
use leoflow_base::home::Home;
use leoflow_base::sys::checkpoint;
use semver::Version;
use std::path::PathBuf;

/// Points the links in `bin/` at the release, then records its version and the change in the history. Idempotent.
pub(super) fn make_installed(home: &Home, change: Change) -> Result<(), UpgradeError> {
    let write_error = |path: PathBuf| move |source| UpgradeError::Write { path, source };
    let to = change.to.clone();
    setup::link(home, &to.to_string()).map_err(write_error(home.bin()))?;
    checkpoint("upgrade.linked");
    setup::record_version(home, &to.to_string())?;
    let is_recorded = history::last_change_to(home, &to).is_some_and(|last| last.backup == change.backup);
    if !is_recorded {
        history::add(home, change).map_err(write_error(home.upgrade()))?;
    }
    Ok(())
}

/// Migrations that this program has applied without the steps of an upgrade, as at the start of a development build.
pub(crate) struct MigrationAtStart<'a> {
    /// The release that applied the migrations before, as the ledger has it.
    pub ledger_release: Option<String>,
    /// The version of this program.
    pub own_version: &'a str,
    /// The schema versions before and after.
    pub schema: (i64, i64),
    pub backup: Option<PathBuf>,
}

impl MigrationAtStart<'_> {
    /// Makes this program the installed one and records an upgrade, so that a rollback finds the release before it and
    /// the backup.
    pub fn record(self, home: &Home) -> Result<(), UpgradeError> {
        let to = parse_version(self.own_version)?;
        let Some(from) = earlier_release([setup::linked_version(home), self.ledger_release], &to) else {
            return Ok(());
        };
        setup::add_version(home, self.own_version)
            .map_err(|error| UpgradeError::Write { path: error.path, source: error.source })?;
        make_installed(home, Change::now(Kind::Upgrade, (&from, &to), self.schema, self.backup))
    }
}

/// The first of the releases that is another one than `to`.
fn earlier_release(releases: [Option<String>; 2], to: &Version) -> Option<Version> {
    releases.into_iter().flatten().filter_map(|text| Version::parse(&text).ok()).find(|release| release != to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_release_is_left_before_the_ledgers() {
        let to = Version::parse("0.2.0+aa").unwrap();
        let earlier = |linked: Option<&str>, ledger: Option<&str>| {
            let releases = [linked, ledger].map(|text| text.map(str::to_owned));
            earlier_release(releases, &to).map(|release| release.to_string())
        };
        assert_eq!(earlier(Some("0.2.0+bb"), Some("0.1.0")).as_deref(), Some("0.2.0+bb"));
        // The program was installed again after an uninstall.
        assert_eq!(earlier(Some("0.2.0+aa"), Some("0.1.0")).as_deref(), Some("0.1.0"));
        assert_eq!(earlier(None, Some("0.1.0")).as_deref(), Some("0.1.0"));
        assert_eq!(earlier(Some("0.2.0+aa"), Some("0.2.0+aa")), None);
        assert_eq!(earlier(Some("a-folder"), None), None);
    }

    #[test]
    fn an_installed_release_is_recorded_once_with_its_backup() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let (from, to) = (Version::new(0, 1, 0), Version::new(1, 0, 0));
        let backup = Some(home.backups().join("a.tar.zst"));
        for _ in 0..2 {
            make_installed(&home, Change::now(Kind::Upgrade, (&from, &to), (1, 2), backup.clone())).unwrap();
        }
        assert_eq!(setup::linked_version(&home).as_deref(), Some("1.0.0"));
        let changes = history::history(&home);
        assert_eq!((changes.len(), &changes[0].backup), (1, &backup));
        assert_eq!(history::rollback_target(&changes, &to), Some(from));
    }
}
