//! Plans a rollback to an earlier release. Pure.

use super::capacity::{self, Need};
use super::history::Change;
use super::plan::{Facts, Instance, Plan};
use super::program::About;
use super::source::Wanted;
use semver::Version;
use serde::Serialize;
use std::path::PathBuf;

/// What is known of the ways back.
#[derive(Debug)]
pub struct Ways<'a> {
    /// Of the program that is gone back to.
    pub about: &'a About,
    pub schema: i64,
    /// The migrations that it does not know, newest first; or why they cannot be undone.
    pub to_undo: Result<Vec<String>, String>,
    /// The upgrade that led from it to what is in force.
    pub change: Option<&'a Change>,
    /// Whether the backup from before that is still there.
    pub backup_exists: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Back {
    /// The migrations are undone, newest first; everything else stays.
    Undo { migrations: Vec<String>, schema: i64 },
    /// The backup from before the upgrade comes back; what was done since is lost, but for the backup that is
    /// taken first.
    Restore { backup: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0} is what is installed")]
    Same(Version),
    #[error("no upgrade led to {0}: name the version to go back to")]
    NoHistory(Version),
    #[error("{0} is newer than what is installed")]
    Newer(Version),
    #[error("{0} is not kept on this machine")]
    NotKept(Version),
    /// All in bytes; `backups` is what automatic backups take.
    #[error(
        "going back needs {} MB of free disk, and there are {} MB: {}",
        capacity::total(.needs).div_ceil(1_000_000), .free / 1_000_000, in_words(.needs)
    )]
    Space { needs: Vec<Need>, free: u64, backups: u64 },
    #[error("{why}, and the backup from before the upgrade is gone")]
    NoWay { why: String },
}

fn in_words(needs: &[Need]) -> String {
    let words = |need: &Need| format!("{} MB {}", need.bytes.div_ceil(1_000_000), need.purpose);
    needs.iter().map(words).collect::<Vec<_>>().join(", ")
}

pub fn plan(ways: &Ways<'_>) -> Result<Back, Refusal> {
    match &ways.to_undo {
        Ok(migrations) => {
            let schema = ways.about.schema_version.min(ways.schema);
            Ok(Back::Undo { migrations: migrations.clone(), schema })
        }
        Err(why) => {
            let backup = ways.change.filter(|_| ways.backup_exists).and_then(|change| change.backup.clone());
            // One of a schema that the program knows.
            let fits = ways.change.is_some_and(|change| change.schema_from <= ways.about.schema_version);
            match backup.filter(|_| fits) {
                Some(backup) => Ok(Back::Restore { backup }),
                None => Err(Refusal::NoWay { why: why.clone() }),
            }
        }
    }
}

/// The same as a plan that the steps of an upgrade follow.
pub fn as_change(facts: &Facts, ways: &Ways<'_>, to: &Version, schema: i64) -> Plan {
    Plan {
        from: facts.installed.clone(),
        to: to.clone(),
        live: facts.instance != Instance::Stopped,
        schema_from: ways.schema,
        schema_to: schema,
        migrations: Vec::new(),
        later: Vec::new(),
        program: Wanted { url: String::new(), sha256: String::new(), size: 0 },
        components: Vec::new(),
        needs_bytes: 0,
        running_tasks: facts.running_tasks,
        warnings: Vec::new(),
        notes: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Kind;
    use super::*;

    fn about(schema_version: i64) -> About {
        About { version: "0.1.0".into(), target: String::new(), schema_version, commit: None, migrations: vec![] }
    }

    fn change() -> Change {
        let version = |text: &str| Version::parse(text).unwrap();
        let backup = Some("/b.tar.zst".into());
        Change::now(Kind::Upgrade, (&version("0.1.0"), &version("0.2.0")), (3, 4), backup)
    }

    #[test]
    fn what_can_be_undone_is_and_nothing_is_lost() {
        let (about, change) = (about(3), change());
        let to_undo = Ok(vec!["V0004__more".to_owned()]);
        let ways = Ways { about: &about, schema: 4, to_undo, change: Some(&change), backup_exists: true };
        assert_eq!(plan(&ways).unwrap(), Back::Undo { migrations: vec!["V0004__more".into()], schema: 3 });
    }

    #[test]
    fn what_cannot_be_undone_comes_back_from_the_backup_or_not_at_all() {
        let (about, change) = (about(3), change());
        let ways = |backup_exists| Ways {
            about: &about,
            schema: 4,
            to_undo: Err("V0004__more cannot be undone".to_owned()),
            change: Some(&change),
            backup_exists,
        };
        assert_eq!(plan(&ways(true)).unwrap(), Back::Restore { backup: "/b.tar.zst".into() });
        assert!(matches!(plan(&ways(false)), Err(Refusal::NoWay { .. })));
        let older = self::about(2);
        assert!(matches!(plan(&Ways { about: &older, ..ways(true) }), Err(Refusal::NoWay { .. })));
    }
}
