//! What the database is, compared with what this binary knows. Pure, and asked before any write.

use super::embedded::{Known, newest};
use std::collections::BTreeSet;

/// What the database says of itself; `None` where a table is not there.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub history: Option<Vec<HistoryRow>>,
    pub ledger: Option<Vec<LedgerRow>>,
    /// Whether there are tables of ours without any record of a migration.
    pub has_tables: bool,
    /// Why a record could not be read at all.
    pub unreadable: Option<String>,
}

/// A row of refinery's table, as text: it may hold anything.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    pub version: Option<i64>,
    pub name: Option<String>,
    pub applied_on: Option<String>,
    pub checksum: Option<String>,
}

#[derive(Debug, Clone)]
pub struct LedgerRow {
    pub version: i64,
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Fresh,
    Current { version: i64 },
    Pending { from: i64, versions: Vec<i64> },
    Newer { database: i64, binary: i64 },
    Edited { files: Vec<String> },
    Gap { missing: Vec<i64> },
    Damaged { reason: String },
}

impl State {
    /// The word for it in `migrate-db status --json`.
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

/// The newest version that any record names; 0 when there is none.
pub fn database_version(found: &Found) -> i64 {
    let history = found.history.iter().flatten().filter_map(|row| row.version);
    let ledger = found.ledger.iter().flatten().map(|row| row.version);
    history.chain(ledger).max().unwrap_or(0)
}

/// Newer is looked for first: of a newer database nothing else can be judged.
pub fn classify(known: &[Known], found: &Found) -> State {
    let (database, binary) = (database_version(found), newest(known));
    if database > binary {
        return State::Newer { database, binary };
    }
    if let Some(reason) = damage(found) {
        return State::Damaged { reason };
    }
    let applied: BTreeSet<i64> = found.ledger.iter().flatten().map(|row| row.version).collect();
    let edited: Vec<String> =
        known.iter().filter(|known| was_edited(known, found)).map(|known| known.file.clone()).collect();
    if !edited.is_empty() {
        return State::Edited { files: edited };
    }
    let embedded: BTreeSet<i64> = known.iter().map(|known| known.version).collect();
    let later: BTreeSet<i64> = waiting(known, found).iter().map(|known| known.version).collect();
    let missing: Vec<i64> = embedded
        .symmetric_difference(&applied)
        .copied()
        .filter(|version| *version <= database && !later.contains(version))
        .collect();
    if !missing.is_empty() {
        return State::Gap { missing };
    }
    let pending: Vec<i64> = embedded.difference(&applied).copied().filter(|version| !later.contains(version)).collect();
    match (applied.is_empty(), pending.is_empty()) {
        (true, _) => State::Fresh,
        (false, true) => State::Current { version: database },
        (false, false) => State::Pending { from: database, versions: pending },
    }
}

/// What is not applied and need not be for a server to start, oldest first. Nothing waits in a new database.
pub fn waiting<'a>(known: &'a [Known], found: &Found) -> Vec<&'a Known> {
    let applied: BTreeSet<i64> = found.ledger.iter().flatten().map(|row| row.version).collect();
    let waits = |known: &&Known| known.phase.comes_later() && !applied.contains(&known.version);
    known.iter().filter(waits).collect()
}

/// What is wrong with the records themselves. refinery panics on rows that this refuses.
pub(super) fn damage(found: &Found) -> Option<String> {
    if let Some(reason) = &found.unreadable {
        return Some(reason.clone());
    }
    let mut history = BTreeSet::new();
    for row in found.history.iter().flatten() {
        let Some(version) = row.version else {
            return Some("a row in refinery_schema_history has no version".to_owned());
        };
        let well_formed = row.name.is_some()
            && row.applied_on.as_ref().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok())
            && row.checksum.as_ref().is_some_and(|text| text.parse::<u64>().is_ok());
        if !well_formed {
            return Some(format!("the row of version {version} in refinery_schema_history is malformed"));
        }
        history.insert(version);
    }
    let ledger: BTreeSet<i64> = found.ledger.iter().flatten().map(|row| row.version).collect();
    if let Some(version) = history.symmetric_difference(&ledger).next() {
        return Some(format!("version {version} is in only one of refinery_schema_history and leoflow_ledger"));
    }
    if ledger.is_empty() && found.has_tables {
        return Some("there are tables, but no record of how they came to be".to_owned());
    }
    None
}

fn was_edited(known: &Known, found: &Found) -> bool {
    let ledger = found.ledger.iter().flatten().find(|row| row.version == known.version);
    let history = found.history.iter().flatten().find(|row| row.version == Some(known.version));
    let checksum = known.migration.checksum().to_string();
    ledger.is_some_and(|row| row.sha256 != known.sha256)
        || history.is_some_and(|row| row.checksum.as_ref() != Some(&checksum) || row.name.as_ref() != Some(&known.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: i32, phase: &str) -> Known {
        Known::parse(&format!("V{n:04}__m{n}.sql"), &format!("-- phase: {phase}\nSELECT {n};\n"), None).unwrap()
    }

    fn known(count: i32) -> Vec<Known> {
        (1..=count).map(|n| one(n, "data")).collect()
    }

    fn applied(known: &[Known]) -> Found {
        let history = known.iter().map(|k| HistoryRow {
            version: Some(k.version),
            name: Some(k.name.clone()),
            applied_on: Some("2026-01-01T00:00:00Z".into()),
            checksum: Some(k.migration.checksum().to_string()),
        });
        let ledger = known.iter().map(|k| LedgerRow { version: k.version, sha256: k.sha256.clone() });
        Found { history: Some(history.collect()), ledger: Some(ledger.collect()), has_tables: true, unreadable: None }
    }

    fn with(change: impl FnOnce(&mut Found)) -> Found {
        let mut found = applied(&known(3));
        change(&mut found);
        found
    }

    #[test]
    fn every_state_of_a_database_has_its_name() {
        let row = |version| HistoryRow { version, name: None, applied_on: None, checksum: None };
        let cases: Vec<(&str, Found, State)> = vec![
            ("nothing there", Found::default(), State::Fresh),
            (
                "empty records, as after a rollback to nothing",
                Found { history: Some(vec![]), ledger: Some(vec![]), ..Found::default() },
                State::Fresh,
            ),
            ("all applied", applied(&known(3)), State::Current { version: 3 }),
            ("one to go", applied(&known(2)), State::Pending { from: 2, versions: vec![3] }),
            ("one more than we know", applied(&known(4)), State::Newer { database: 4, binary: 3 }),
            (
                "a row 9999 in the ledger alone",
                with(|f| f.ledger.as_mut().unwrap().push(LedgerRow { version: 9999, sha256: String::new() })),
                State::Newer { database: 9999, binary: 3 },
            ),
            (
                "a row 9999 in the history alone, malformed",
                with(|f| f.history.as_mut().unwrap().push(row(Some(9999)))),
                State::Newer { database: 9999, binary: 3 },
            ),
            (
                "another text in the ledger",
                with(|f| f.ledger.as_mut().unwrap()[1].sha256 = "0".repeat(64)),
                State::Edited { files: vec!["V0002__m2.sql".into()] },
            ),
            (
                "another checksum in the history",
                with(|f| f.history.as_mut().unwrap()[0].checksum = Some("1".into())),
                State::Edited { files: vec!["V0001__m1.sql".into()] },
            ),
            (
                "another name in the history",
                with(|f| f.history.as_mut().unwrap()[2].name = Some("other".into())),
                State::Edited { files: vec!["V0003__m3.sql".into()] },
            ),
            (
                "a hole",
                with(|f| {
                    f.history.as_mut().unwrap().remove(1);
                    f.ledger.as_mut().unwrap().remove(1);
                }),
                State::Gap { missing: vec![2] },
            ),
        ];
        for (name, found, expected) in cases {
            assert_eq!(classify(&known(3), &found), expected, "{name}");
        }
    }

    #[test]
    fn a_version_in_between_that_we_never_knew_is_a_hole_in_ours() {
        let mut ours = known(3);
        ours.remove(1);
        assert_eq!(classify(&ours, &applied(&known(3))), State::Gap { missing: vec![2] });
    }

    #[test]
    fn what_comes_later_holds_nothing_up_and_leaves_no_hole() {
        let all = [one(1, "data"), one(2, "postdeploy"), one(3, "contract"), one(4, "data")];
        let found = |versions: &[usize]| applied(&versions.iter().map(|n| all[n - 1].clone()).collect::<Vec<_>>());
        let waiting_of = |versions| waiting(&all, &found(versions)).iter().map(|known| known.version).collect();
        assert_eq!(classify(&all, &Found::default()), State::Fresh, "all of them, in their order");
        assert_eq!(classify(&all, &found(&[1])), State::Pending { from: 1, versions: vec![4] });
        assert_eq!(classify(&all, &found(&[1, 4])), State::Current { version: 4 });
        assert_eq!(classify(&all, &found(&[1, 3, 4])), State::Current { version: 4 });
        assert_eq!(classify(&all, &found(&[2, 4])), State::Gap { missing: vec![1] });
        assert_eq!((waiting_of(&[1, 4]), waiting_of(&[1, 3, 4])), (vec![2, 3], vec![2]));
    }

    #[test]
    fn damaged_records_are_told_apart_from_all_that() {
        let cases: Vec<(&str, Found)> = vec![
            ("checksum is no number", with(|f| f.history.as_mut().unwrap()[0].checksum = Some("x".into()))),
            ("negative checksum", with(|f| f.history.as_mut().unwrap()[0].checksum = Some("-1".into()))),
            ("date is no date", with(|f| f.history.as_mut().unwrap()[0].applied_on = Some("yesterday".into()))),
            ("no name", with(|f| f.history.as_mut().unwrap()[0].name = None)),
            ("no ledger", with(|f| f.ledger = None)),
            ("no history", with(|f| f.history = None)),
            ("one row less in the ledger", with(|f| drop(f.ledger.as_mut().unwrap().pop()))),
            ("tables without records", Found { has_tables: true, ..Found::default() }),
            ("not our table", Found { unreadable: Some("no column version".into()), ..Found::default() }),
        ];
        for (name, found) in cases {
            assert!(matches!(classify(&known(3), &found), State::Damaged { .. }), "{name}");
        }
    }
}
