//! `upgrade/rollback.json`: a rollback by backup that is under way, or was interrupted. The restore itself is the older
//! release's, with the journal of its own; this record says what belongs around it. Which of both releases is in force is
//! never written down: the schema of the database says it, and the restore puts that in its place in one step.

use super::history::{self, Change, Kind};
use super::{UpgradeError, stage};
use crate::home::Home;
use crate::setup;
use crate::sys::process::ProcessId;
use crate::sys::{checkpoint, files};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRecord {
    pub from: Version,
    pub to: Version,
    /// Of the database before it.
    pub schema_from: i64,
    /// The newest schema that the older release knows: with it or an older one the database is restored.
    pub schema_to: i64,
    /// The backup that comes back, under a name of its own; below the home.
    pub restored: PathBuf,
    /// The backup of what was there, below the home; `None` until it is made.
    pub made: Option<PathBuf>,
    /// Who does it, and the restore that it has started.
    pub worker: Option<ProcessId>,
    pub restorer: Option<ProcessId>,
}

/// Which release is in force after a rollback that was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The backup had come back, and the rest is done now.
    Finished(RollbackRecord),
    /// It had not: everything is as it was.
    Forgotten(RollbackRecord),
}

const SIZE_LIMIT: u64 = 64 * 1024;

fn path(home: &Home) -> PathBuf {
    home.upgrade().join("rollback.json")
}

/// `None` where there is none. A damaged one is an error: it decides which release is in force.
pub fn read(home: &Home) -> io::Result<Option<RollbackRecord>> {
    let text = files::read_text(&path(home), SIZE_LIMIT)?;
    text.map(|text| serde_json::from_str(&text).map_err(io::Error::from)).transpose()
}

impl RollbackRecord {
    pub fn write(&self, home: &Home) -> io::Result<()> {
        files::create_private_dir(&home.upgrade())?;
        files::write_atomic(&path(home), &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Whether somebody is still at it.
    pub fn is_under_way(&self) -> bool {
        [&self.worker, &self.restorer].into_iter().flatten().any(ProcessId::is_alive)
    }

    /// What has become of it, by the schema of the database. Nobody may be at it any more.
    pub fn settle(self, home: &Home, schema: i64) -> Result<Settled, UpgradeError> {
        if schema > self.schema_to {
            self.forget(home)?;
            return Ok(Settled::Forgotten(self));
        }
        self.finish(home)?;
        Ok(Settled::Finished(self))
    }

    /// Makes the older release the installed one. Each step may be done twice.
    pub fn finish(&self, home: &Home) -> Result<(), UpgradeError> {
        let write = |path: PathBuf| move |source| UpgradeError::Write { path, source };
        // A development build may run from elsewhere.
        if stage::program_of(home, &self.to).exists() {
            setup::link(home, &self.to.to_string()).map_err(write(home.bin()))?;
        }
        checkpoint("rollback.linked");
        setup::note_version(home, &self.to.to_string())?;
        checkpoint("rollback.noted");
        let made = self.made.as_ref().map(|made| home.root().join(made));
        let is_recorded = history::last_to(home, &self.to)
            .is_some_and(|change| change.kind() == Kind::Restore && change.backup == made);
        if !is_recorded {
            let schema = (self.schema_from, self.schema_to);
            let change = Change::now(Kind::Restore, (&self.from, &self.to), schema, made);
            history::add(home, change).map_err(write(home.upgrade()))?;
        }
        checkpoint("rollback.recorded");
        self.forget(home)
    }

    /// Removes it, with the copy of the backup; another rollback's record stays.
    pub fn forget(&self, home: &Home) -> Result<(), UpgradeError> {
        let is_ours = |now: &RollbackRecord| now.worker == self.worker;
        if !read(home).ok().flatten().as_ref().is_some_and(is_ours) {
            return Ok(());
        }
        // A copy that stays takes room and nothing else.
        let _ = files::remove_any(&home.root().join(&self.restored));
        files::remove_any(&path(home)).map_err(|source| UpgradeError::Write { path: path(home), source })
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
            restored: "upgrade/a.tar.zst".into(),
            made: Some("backups/b.tar.zst".into()),
            worker: None,
            restorer: None,
        }
    }

    #[test]
    fn the_schema_says_which_release_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        assert_eq!(read(&home).unwrap(), None);
        for schema in [15, 16] {
            record().write(&home).unwrap();
            assert_eq!(read(&home).unwrap(), Some(record()));
            assert_eq!(record().settle(&home, schema).unwrap(), Settled::Forgotten(record()));
            assert_eq!((read(&home).unwrap(), history::history(&home).len()), (None, 0));
        }
        record().write(&home).unwrap();
        assert!(!record().is_under_way());
        let own = ProcessId::current();
        assert!(RollbackRecord { restorer: own, ..record() }.is_under_way());
        std::fs::write(path(&home), "{").unwrap();
        assert!(read(&home).is_err());
    }
}
