//! Plans a rollback to an earlier release. Pure.

use super::capacity::{self, Need};
use super::history::Change;
use crate::upgrade::release::program::About;
use leoflow_postgres::schema::SchemaError;
use semver::Version;
use serde::Serialize;
use std::path::PathBuf;

/// The facts that decide how to roll back.
#[derive(Debug)]
pub struct RollbackFacts<'a> {
    /// The program of the rollback's target.
    pub about: &'a About,
    /// The database's schema version.
    pub schema: i64,
    /// The migrations that the target does not know, newest first; or why they cannot be undone.
    pub to_undo: Result<Vec<String>, SchemaError>,
    /// The upgrade from the target to the installed release.
    pub change: Option<&'a Change>,
    /// True when the backup taken before that upgrade still exists.
    pub backup_exists: bool,
}

/// How a rollback returns to the older schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum RollbackPlan {
    /// Undoes the migrations, newest first; other data stays. `schema` is the schema version afterwards.
    Undo { migrations: Vec<String>, schema: i64 },
    /// Restores the backup from before the upgrade; newer data remains only in the backup that is taken first.
    Restore { backup: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum RollbackRefusal {
    #[error("{0} is already installed")]
    Same(Version),
    #[error("no upgrade led to {0}: name a version with --to")]
    NoHistory(Version),
    #[error("{0} is newer than the installed release")]
    Newer(Version),
    #[error("{0} is not kept on this machine")]
    NotKept(Version),
    #[error("{} is leoflow {found}, not {to}: another program was copied over it", .program.display())]
    Overwritten { program: PathBuf, found: String, to: Version },
    /// Sizes in bytes; `backups` is the total size of the automatic backups.
    #[error(
        "the rollback needs {} MB of free disk, but only {} MB are available: {}",
        capacity::total(.needs).div_ceil(1_000_000), .free / 1_000_000, format_needs(.needs)
    )]
    Space { needs: Vec<Need>, free: u64, backups: u64 },
    #[error("{0}, and the backup from before the upgrade no longer exists")]
    NoWay(#[source] SchemaError),
}

/// Formats the needs for a message.
fn format_needs(needs: &[Need]) -> String {
    let need_text = |need: &Need| format!("{} MB {}", need.bytes.div_ceil(1_000_000), need.purpose);
    needs.iter().map(need_text).collect::<Vec<_>>().join(", ")
}

/// Undoes the migrations if all of them can be undone, otherwise restores the backup.
pub fn plan(facts: RollbackFacts<'_>) -> Result<RollbackPlan, RollbackRefusal> {
    let RollbackFacts { about, schema, to_undo, change, backup_exists } = facts;
    match to_undo {
        Ok(migrations) => Ok(RollbackPlan::Undo { migrations, schema: about.schema_version.min(schema) }),
        Err(why) => {
            // The older program must know the backup's schema.
            let change = change.filter(|change| backup_exists && change.schema_from <= about.schema_version);
            let backup = change.and_then(|change| change.backup.clone());
            backup.map(|backup| RollbackPlan::Restore { backup }).ok_or(RollbackRefusal::NoWay(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::rollback::history::Kind;

    fn about(schema_version: i64) -> About {
        About { version: "0.1.0".into(), target: String::new(), schema_version, commit: None, migrations: vec![] }
    }

    fn change() -> Change {
        let version = |text: &str| Version::parse(text).unwrap();
        let backup = Some("/b.tar.zst".into());
        Change::now(Kind::Upgrade, (&version("0.1.0"), &version("0.2.0")), (3, 4), backup)
    }

    #[test]
    fn undoes_reversible_migrations() {
        let (about, change) = (about(3), change());
        let to_undo = Ok(vec!["V0004__more".to_owned()]);
        let rollback_facts =
            RollbackFacts { about: &about, schema: 4, to_undo, change: Some(&change), backup_exists: true };
        assert_eq!(
            plan(rollback_facts).unwrap(),
            RollbackPlan::Undo { migrations: vec!["V0004__more".into()], schema: 3 }
        );
    }

    #[test]
    fn restores_the_backup_when_migrations_are_irreversible() {
        let (about, change) = (about(3), change());
        let rollback_facts = |backup_exists| RollbackFacts {
            about: &about,
            schema: 4,
            to_undo: Err(SchemaError::NotReversible("V0004__more".to_owned())),
            change: Some(&change),
            backup_exists,
        };
        assert_eq!(plan(rollback_facts(true)).unwrap(), RollbackPlan::Restore { backup: "/b.tar.zst".into() });
        assert!(matches!(plan(rollback_facts(false)), Err(RollbackRefusal::NoWay(_))));
        let older = super::tests::about(2);
        assert!(matches!(
            plan(RollbackFacts { about: &older, ..rollback_facts(true) }),
            Err(RollbackRefusal::NoWay(_))
        ));
    }
}
