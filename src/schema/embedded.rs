//! The migrations inside this binary.

use super::batches::Batches;
use crate::build_info::{MigrationFile, build_info};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// `(file name, SQL, rollback SQL)`, made by the build script from `migrations/`.
const FILES: &[MigrationFile] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// When in an upgrade a migration may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Adds, before the new server starts; the release before goes on working.
    Expand,
    /// Changes what is there. What it has as batches runs beside the server; an upgrade only writes down that it is to.
    Data,
    /// What the new release can do without, once the upgrade to it is committed.
    Postdeploy,
    /// Takes away what no release here uses any more, once its gates are open.
    Contract,
}

impl Phase {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Expand, "expand"),
        (Self::Data, "data"),
        (Self::Postdeploy, "postdeploy"),
        (Self::Contract, "contract"),
    ];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(phase, _)| *phase)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Data => "data",
            Self::Postdeploy => "postdeploy",
            Self::Contract => "contract",
        }
    }

    /// Whether a server starts without it.
    pub fn comes_later(self) -> bool {
        matches!(self, Self::Postdeploy | Self::Contract)
    }
}

/// One migration this binary knows.
#[derive(Debug, Clone)]
pub struct Known {
    pub version: i64,
    pub name: String,
    /// `V0001__name.sql`
    pub file: String,
    pub phase: Phase,
    /// Of the file.
    pub sha256: String,
    pub rollback: Option<String>,
    /// Of a data migration that is too much for one transaction.
    pub batches: Option<Batches>,
    /// What is executed: the file and the row it writes into the ledger. refinery's checksum covers
    /// this text, so nothing in it varies from run to run.
    pub migration: refinery::Migration,
}

/// All of them, oldest first.
///
/// # Panics
/// When a file in `migrations/` is malformed, which the test suite would have shown.
pub fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        FILES
            .iter()
            .chain(build_info().more_migrations)
            .map(|(file, sql, rollback)| Known::parse(file, sql, *rollback).expect("a well-formed migration"))
            .collect()
    })
}

/// The newest version in `migrations`; 0 when there is none.
pub fn newest(migrations: &[Known]) -> i64 {
    migrations.iter().map(|known| known.version).max().unwrap_or(0)
}

impl Known {
    /// Reads the file name and the header line.
    pub fn parse(file: &str, sql: &str, rollback: Option<&str>) -> Result<Self, String> {
        let stem = file.strip_suffix(".sql").ok_or_else(|| format!("{file} does not end in .sql"))?;
        let header = sql.lines().next().unwrap_or_default();
        let phase = header
            .strip_prefix("-- phase: ")
            .and_then(Phase::parse)
            .ok_or_else(|| format!("{file} does not begin with `-- phase: expand|data|postdeploy|contract`"))?;
        let (once, batches) = Batches::split(file, sql)?;
        if batches.is_some() && phase != Phase::Data {
            return Err(format!("{file} has steps, which only a data migration has"));
        }
        if phase == Phase::Expand && rollback.is_none() {
            return Err(format!("{file} is an expand migration without {stem}.rollback.sql"));
        }
        let (number, name) = stem
            .strip_prefix('V')
            .and_then(|rest| rest.split_once("__"))
            .ok_or_else(|| format!("{file} is not called V0001__name.sql"))?;
        let version: i32 = number.parse().map_err(|_| format!("{file} has no version number"))?;
        let sha256 = hex::encode(Sha256::digest(sql.as_bytes()));
        let begun = batches.as_ref().map(|_| format!("INSERT INTO data_migration (version) VALUES ({version});\n"));
        let begun = begun.unwrap_or_default();
        let text = format!("{once}\n{begun}{}", ledger_row(version, name, phase, &sha256, rollback));
        // By refinery's U what comes later may come after a newer one.
        let prefix = if phase.comes_later() { 'U' } else { 'V' };
        let migration = refinery::Migration::unapplied(&format!("{prefix}{number}__{name}"), &text)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            version: version.into(),
            name: name.to_owned(),
            file: file.to_owned(),
            phase,
            sha256,
            rollback: rollback.map(str::to_owned),
            batches,
            migration,
        })
    }
}

fn ledger_row(version: i32, name: &str, phase: Phase, sha256: &str, rollback: Option<&str>) -> String {
    let rollback = rollback.map_or_else(|| "NULL".to_owned(), |sql| format!("'{}'", sql.replace('\'', "''")));
    format!(
        "INSERT INTO leoflow_ledger (version, name, phase, sha256, binary_version, duration, rollback_sql)\n\
         VALUES ({version}, '{}', '{}', '{sha256}', current_setting('leoflow.version'), clock_timestamp() - now(), {rollback});\n",
        name.replace('\'', "''"),
        phase.name(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_well_formed_and_numbered_without_a_hole() {
        let versions: Vec<i64> = known().iter().map(|known| known.version).collect();
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>());
    }

    /// What existing databases have recorded. A released migration never changes, nor does the text
    /// that is appended to it: either would make every such database "edited". New ones are added
    /// here when they are released.
    #[test]
    fn released_migrations_are_what_they_were() {
        let frozen: [(i64, &str, u64); 3] = [
            (1, "9d217b1a4852d53df7592afe4b8b0917338d19d3851d5327de1451c1dfed2af5", 8139899258183603362),
            (2, "d7030a91fe1458fee5300e74d4ab8011694836befac28467125d0d578e39f2c1", 4502073967669780360),
            (3, "a38d9cf0785043d768f4a37835e43934b5dc8b14aa1fd085cab1bd3d171574c0", 4938325791597645899),
        ];
        for (version, sha256, checksum) in frozen {
            let known = known().iter().find(|known| known.version == version).unwrap();
            assert_eq!((known.sha256.as_str(), known.migration.checksum()), (sha256, checksum), "{}", known.file);
        }
    }

    #[test]
    fn a_malformed_file_is_named() {
        for (file, sql, rollback) in [
            ("V0001__a.sql", "CREATE TABLE a ();", Some("")),
            ("V0001__a.sql", "-- phase: expand\n", None),
            ("V0001__a.sql", "-- phase: sideways\n", Some("")),
            ("0001_a.sql", "-- phase: data\n", None),
            ("Vx__a.sql", "-- phase: data\n", None),
            ("V0001__a.sql", "-- phase: postdeploy\n-- step: batch\nSELECT 1;\n-- step: left\nSELECT 0;\n", None),
            ("V0001__a.sql", "-- phase: data\n-- step: batch\nSELECT 1;\n", None),
            ("V0001__a.sql", "-- phase: data\n-- step: sideways\nSELECT 1;\n", None),
        ] {
            assert!(Known::parse(file, sql, rollback).unwrap_err().contains(file));
        }
        assert!(Known::parse("V0001__a.sql", "-- phase: data\n", None).is_ok());
    }
}
