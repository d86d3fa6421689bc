//! Classifies the database's schema against the embedded migrations. Pure; runs before any write.

use super::embedded::{EmbeddedMigration, newest};
use std::collections::BTreeSet;

/// The database's migration records; `None` when a table is missing.
#[derive(Debug, Clone, Default)]
pub struct SchemaRecords {
    pub history: Option<Vec<HistoryRow>>,
    pub ledger: Option<Vec<LedgerRow>>,
    /// True when there are tables besides the records.
    pub has_tables: bool,
    /// Why a record table could not be read.
    pub unreadable: Option<String>,
}

/// A row of the table of refinery (the library that applies migrations), read as text because the content may be
/// arbitrary.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    pub version: Option<i64>,
    pub name: Option<String>,
    pub applied_on: Option<String>,
    pub checksum: Option<String>,
}

/// A row of our own table `leoflow_ledger`.
#[derive(Debug, Clone)]
pub struct LedgerRow {
    pub version: i64,
    pub sha256: String,
}

/// The state of the database's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No migration is applied.
    Fresh,
    /// Every migration that a server needs is applied.
    Current { version: i64 },
    /// `versions` are to be applied; `from` is the newest recorded version.
    Pending { from: i64, versions: Vec<i64> },
    /// The database has a version that this binary does not know.
    Newer { database: i64, binary: i64 },
    /// These files differ from those that were applied.
    Edited { files: Vec<String> },
    /// These versions are missing below the newest one, in the database or in this binary.
    Gap { missing: Vec<i64> },
    /// The records contradict each other or cannot be read.
    Damaged { reason: String },
}

impl State {
    /// The name in `migrate-db status --json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Current { .. } => "current",
            Self::Pending { .. } => "pending",
            Self::Newer { .. } => "newer",
            Self::Edited { .. } => "edited",
            Self::Gap { .. } => "gap",
            Self::Damaged { .. } => "damaged",
        }
    }
}

/// The newest recorded version; 0 when there is none.
pub fn database_version(records: &SchemaRecords) -> i64 {
    let history = records.history.iter().flatten().filter_map(|row| row.version);
    let ledger = records.ledger.iter().flatten().map(|row| row.version);
    history.chain(ledger).max().unwrap_or(0)
}

/// Classifies the schema. `Newer` is checked first: this binary cannot judge a newer database any further.
pub fn classify(known: &[EmbeddedMigration], records: &SchemaRecords) -> State {
    let (database, binary) = (database_version(records), newest(known));
    if database > binary {
        return State::Newer { database, binary };
    }
    if let Some(reason) = damage(records) {
        return State::Damaged { reason };
    }
    let applied: BTreeSet<i64> = records.ledger.iter().flatten().map(|row| row.version).collect();
    let edited: Vec<String> =
        known.iter().filter(|known| was_edited(known, records)).map(|known| known.file.clone()).collect();
    if !edited.is_empty() {
        return State::Edited { files: edited };
    }
    let embedded: BTreeSet<i64> = known.iter().map(|known| known.version).collect();
    let deferred: BTreeSet<i64> = waiting(known, records).iter().map(|known| known.version).collect();
    let missing: Vec<i64> = embedded
        .symmetric_difference(&applied)
        .copied()
        .filter(|version| *version <= database && !deferred.contains(version))
        .collect();
    if !missing.is_empty() {
        return State::Gap { missing };
    }
    let pending: Vec<i64> =
        embedded.difference(&applied).copied().filter(|version| !deferred.contains(version)).collect();
    match (applied.is_empty(), pending.is_empty()) {
        (true, _) => State::Fresh,
        (false, true) => State::Current { version: database },
        (false, false) => State::Pending { from: database, versions: pending },
    }
}

/// The unapplied migrations that a server can start without, oldest first.
pub fn waiting<'a>(known: &'a [EmbeddedMigration], records: &SchemaRecords) -> Vec<&'a EmbeddedMigration> {
    let applied: BTreeSet<i64> = records.ledger.iter().flatten().map(|row| row.version).collect();
    let waits = |known: &&EmbeddedMigration| known.phase.is_deferred() && !applied.contains(&known.version);
    known.iter().filter(waits).collect()
}

/// Describes damage of the records; `None` if there is none. refinery, which applies the migrations, panics on the rows
/// that this function rejects.
pub fn damage(records: &SchemaRecords) -> Option<String> {
    if let Some(reason) = &records.unreadable {
        return Some(reason.clone());
    }
    let mut history = BTreeSet::new();
    for row in records.history.iter().flatten() {
        let Some(version) = row.version else {
            return Some("a row in refinery_schema_history has no version".to_owned());
        };
        let is_well_formed = row.name.is_some()
            && row.applied_on.as_ref().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok())
            && row.checksum.as_ref().is_some_and(|text| text.parse::<u64>().is_ok());
        if !is_well_formed {
            return Some(format!("the row of version {version} in refinery_schema_history is malformed"));
        }
        history.insert(version);
    }
    let ledger: BTreeSet<i64> = records.ledger.iter().flatten().map(|row| row.version).collect();
    if let Some(version) = history.symmetric_difference(&ledger).next() {
        return Some(format!("version {version} is in only one of refinery_schema_history and leoflow_ledger"));
    }
    if ledger.is_empty() && records.has_tables {
        return Some("there are tables, but no record of migrations".to_owned());
    }
    None
}

/// True when an applied migration differs from the embedded file.
fn was_edited(known: &EmbeddedMigration, records: &SchemaRecords) -> bool {
    let ledger = records.ledger.iter().flatten().find(|row| row.version == known.version);
    let history = records.history.iter().flatten().find(|row| row.version == Some(known.version));
    let checksum = known.migration.checksum().to_string();
    ledger.is_some_and(|row| row.sha256 != known.sha256)
        || history.is_some_and(|row| row.checksum.as_ref() != Some(&checksum) || row.name.as_ref() != Some(&known.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(n: i32, phase: &str) -> EmbeddedMigration {
        EmbeddedMigration::parse(&format!("V{n:04}__m{n}.sql"), &format!("-- phase: {phase}\nSELECT {n};\n"), None)
            .unwrap()
    }

    fn known(count: i32) -> Vec<EmbeddedMigration> {
        (1..=count).map(|n| migration(n, "data")).collect()
    }

    fn applied(known: &[EmbeddedMigration]) -> SchemaRecords {
        let history = known.iter().map(|k| HistoryRow {
            version: Some(k.version),
            name: Some(k.name.clone()),
            applied_on: Some("2026-01-01T00:00:00Z".into()),
            checksum: Some(k.migration.checksum().to_string()),
        });
        let ledger = known.iter().map(|k| LedgerRow { version: k.version, sha256: k.sha256.clone() });
        SchemaRecords {
            history: Some(history.collect()),
            ledger: Some(ledger.collect()),
            has_tables: true,
            unreadable: None,
        }
    }

    fn records_with(change: impl FnOnce(&mut SchemaRecords)) -> SchemaRecords {
        let mut records = applied(&known(3));
        change(&mut records);
        records
    }

    #[test]
    fn classifies_every_state() {
        let row = |version| HistoryRow { version, name: None, applied_on: None, checksum: None };
        let cases: Vec<(&str, SchemaRecords, State)> = vec![
            ("empty database", SchemaRecords::default(), State::Fresh),
            (
                "empty records, as after a rollback to nothing",
                SchemaRecords { history: Some(vec![]), ledger: Some(vec![]), ..SchemaRecords::default() },
                State::Fresh,
            ),
            ("all applied", applied(&known(3)), State::Current { version: 3 }),
            ("one pending", applied(&known(2)), State::Pending { from: 2, versions: vec![3] }),
            ("one unknown newer version", applied(&known(4)), State::Newer { database: 4, binary: 3 }),
            (
                "a row 9999 in the ledger alone",
                records_with(|f| f.ledger.as_mut().unwrap().push(LedgerRow { version: 9999, sha256: String::new() })),
                State::Newer { database: 9999, binary: 3 },
            ),
            (
                "a row 9999 in the history alone, malformed",
                records_with(|f| f.history.as_mut().unwrap().push(row(Some(9999)))),
                State::Newer { database: 9999, binary: 3 },
            ),
            (
                "another text in the ledger",
                records_with(|f| f.ledger.as_mut().unwrap()[1].sha256 = "0".repeat(64)),
                State::Edited { files: vec!["V0002__m2.sql".into()] },
            ),
            (
                "another checksum in the history",
                records_with(|f| f.history.as_mut().unwrap()[0].checksum = Some("1".into())),
                State::Edited { files: vec!["V0001__m1.sql".into()] },
            ),
            (
                "another name in the history",
                records_with(|f| f.history.as_mut().unwrap()[2].name = Some("other".into())),
                State::Edited { files: vec!["V0003__m3.sql".into()] },
            ),
            (
                "a gap",
                records_with(|f| {
                    f.history.as_mut().unwrap().remove(1);
                    f.ledger.as_mut().unwrap().remove(1);
                }),
                State::Gap { missing: vec![2] },
            ),
        ];
        for (name, records, expected) in cases {
            assert_eq!(classify(&known(3), &records), expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_older_version_is_a_gap() {
        let mut remaining = known(3);
        remaining.remove(1);
        assert_eq!(classify(&remaining, &applied(&known(3))), State::Gap { missing: vec![2] });
    }

    #[test]
    fn deferred_migrations_are_neither_pending_nor_a_gap() {
        let migrations =
            [migration(1, "data"), migration(2, "postdeploy"), migration(3, "contract"), migration(4, "data")];
        let records =
            |versions: &[usize]| applied(&versions.iter().map(|n| migrations[n - 1].clone()).collect::<Vec<_>>());
        let waiting_of =
            |versions| waiting(&migrations, &records(versions)).iter().map(|known| known.version).collect();
        assert_eq!(classify(&migrations, &SchemaRecords::default()), State::Fresh, "all in order");
        assert_eq!(classify(&migrations, &records(&[1])), State::Pending { from: 1, versions: vec![4] });
        assert_eq!(classify(&migrations, &records(&[1, 4])), State::Current { version: 4 });
        assert_eq!(classify(&migrations, &records(&[1, 3, 4])), State::Current { version: 4 });
        assert_eq!(classify(&migrations, &records(&[2, 4])), State::Gap { missing: vec![1] });
        assert_eq!((waiting_of(&[1, 4]), waiting_of(&[1, 3, 4])), (vec![2, 3], vec![2]));
    }

    #[test]
    fn detects_damaged_records() {
        let cases: Vec<(&str, SchemaRecords)> = vec![
            ("checksum is no number", records_with(|f| f.history.as_mut().unwrap()[0].checksum = Some("x".into()))),
            ("negative checksum", records_with(|f| f.history.as_mut().unwrap()[0].checksum = Some("-1".into()))),
            ("date is no date", records_with(|f| f.history.as_mut().unwrap()[0].applied_on = Some("yesterday".into()))),
            ("no name", records_with(|f| f.history.as_mut().unwrap()[0].name = None)),
            ("no ledger", records_with(|f| f.ledger = None)),
            ("no history", records_with(|f| f.history = None)),
            ("one row less in the ledger", records_with(|f| drop(f.ledger.as_mut().unwrap().pop()))),
            ("tables without records", SchemaRecords { has_tables: true, ..SchemaRecords::default() }),
            (
                "not our table",
                SchemaRecords { unreadable: Some("no column version".into()), ..SchemaRecords::default() },
            ),
        ];
        for (name, records) in cases {
            assert!(matches!(classify(&known(3), &records), State::Damaged { .. }), "{name}");
        }
    }
}
