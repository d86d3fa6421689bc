//! `upgrade/rollback.json`: a running or interrupted rollback that restores a backup. The older release's program does
//! the restore, with a journal of its own; this record lets another process finish or discard the rest. The schema of
//! the database shows whether the restore took place, because the restore changes it in one atomic step.

use super::history::{self, Change, Kind};
use crate::setup;
use crate::upgrade::UpgradeError;
use crate::upgrade::release::stage;
use leoflow_base::home::Home;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::ProcessId;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// The rollback from release `from` to the older release `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRecord {
    pub from: Version,
    pub to: Version,
    /// The schema version before the rollback.
    pub schema_from: i64,
    /// The newest schema version that the older release knows. A database with this or an older version is the restored
    /// one.
    pub schema_to: i64,
    /// A copy of the backup to restore; relative to the home.
    #[serde(rename = "restored")]
    pub backup: PathBuf,
    /// The backup of the state before the rollback, relative to the home; `None` until it is complete.
    #[serde(rename = "made")]
    pub backup_of_current_state: Option<PathBuf>,
    /// The process that performs the rollback.
    pub worker: Option<ProcessId>,
    /// The process that restores the backup, started by the worker.
    pub restorer: Option<ProcessId>,
}

/// How `settle` ended an interrupted rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The backup had been restored, so the remaining steps were done.
    Finished(RollbackRecord),
    /// The backup had not been restored; nothing has changed.
    Discarded(RollbackRecord),
}

const SIZE_LIMIT: u64 = 64 * 1024;

/// Reads the record; `None` if there is none. A damaged record is an error, because it may have to be finished.
pub fn read(home: &Home) -> io::Result<Option<RollbackRecord>> {
    files::read_json(&home.rollback_record(), SIZE_LIMIT)
}

impl RollbackRecord {
    pub fn write(&self, home: &Home) -> io::Result<()> {
        files::create_private_dir(&home.upgrade())?;
        files::write_atomic(&home.rollback_record(), &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// True while the worker or the restore process is alive.
    pub fn is_under_way(&self) -> bool {
        [&self.worker, &self.restorer].into_iter().flatten().any(ProcessId::is_alive)
    }

    /// Finishes or discards the rollback, depending on the database's schema version. The worker and the restore
    /// process must have ended.
    pub fn settle(self, home: &Home, schema: i64) -> Result<Settled, UpgradeError> {
        if schema > self.schema_to {
            self.discard(home)?;
            return Ok(Settled::Discarded(self));
        }
        self.finish(home)?;
        Ok(Settled::Finished(self))
    }

    /// Makes the older release the installed one. Each step is idempotent.
    pub fn finish(&self, home: &Home) -> Result<(), UpgradeError> {
        let write_error = |path: PathBuf| move |source| UpgradeError::Write { path, source };
        // A development build may run outside `versions/`.
        if stage::program_of(home, &self.to).exists() {
            setup::link(home, &self.to.to_string()).map_err(write_error(home.bin()))?;
        }
        checkpoint("rollback.linked");
        setup::record_version(home, &self.to.to_string())?;
        checkpoint("rollback.noted");
        let backup = self.backup_of_current_state.as_ref().map(|path| home.root().join(path));
        let is_recorded = history::last_change_to(home, &self.to)
            .is_some_and(|change| change.kind() == Kind::Restore && change.backup == backup);
        if !is_recorded {
            let schema = (self.schema_from, self.schema_to);
            let change = Change::now(Kind::Restore, (&self.from, &self.to), schema, backup);
            history::add(home, change).map_err(write_error(home.upgrade()))?;
        }
        checkpoint("rollback.recorded");
        self.discard(home)
    }

    /// Removes the record and the copy of the backup, unless the record belongs to another rollback.
    pub fn discard(&self, home: &Home) -> Result<(), UpgradeError> {
        let is_ours = |current: &RollbackRecord| current.worker == self.worker;
        if !read(home).ok().flatten().as_ref().is_some_and(is_ours) {
            return Ok(());
        }
        // A leftover copy only takes disk space.
        let _ = files::remove_any(&home.root().join(&self.backup));
        files::remove_any(&home.rollback_record())
            .map_err(|source| UpgradeError::Write { path: home.rollback_record(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RollbackRecord {
        RollbackRecord {
            from: Version::new(1, 0, 0),
            to: Version::new(0, 2, 0),
            schema_from: 15,
            schema_to: 14,
            backup: "upgrade/a.tar.zst".into(),
            backup_of_current_state: Some("backups/b.tar.zst".into()),
            worker: None,
            restorer: None,
        }
    }

    #[test]
    fn the_schema_decides_which_release_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        assert_eq!(read(&home).unwrap(), None);
        for schema in [15, 16] {
            record().write(&home).unwrap();
            assert_eq!(read(&home).unwrap(), Some(record()));
            assert_eq!(record().settle(&home, schema).unwrap(), Settled::Discarded(record()));
            assert_eq!((read(&home).unwrap(), history::history(&home).len()), (None, 0));
        }
        record().write(&home).unwrap();
        assert!(!record().is_under_way());
        let own = ProcessId::current();
        assert!(RollbackRecord { restorer: own, ..record() }.is_under_way());
        std::fs::write(home.rollback_record(), "{").unwrap();
        assert!(read(&home).is_err());
    }
}
