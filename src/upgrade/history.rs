//! `upgrade/history.json`: which releases followed one another here, and what each left to come back by.

use super::{stage, version_order};
use crate::home::Home;
use crate::sys::{clock, files};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// One change of release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// RFC 3339.
    pub at: String,
    pub from: Version,
    pub to: Version,
    /// Which way it went; `None` where a release before this field wrote it, see [`Change::kind`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    pub schema_from: i64,
    pub schema_to: i64,
    /// Taken before it. Below the home in the file, so that it is found when the home has moved.
    pub backup: Option<PathBuf>,
    /// The database from before it, until this time.
    pub snapshot: Option<Snapshot>,
    /// Seconds in which requests waited, or in which Leoflow was stopped for a restore; `None` where nothing ran, or where it
    /// was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<f64>,
    /// A rollback that was interrupted and finished by another command: the one that was interrupted may be repeated, and then
    /// must not go one release further.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    finished_by_another: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Upgrade,
    /// The migrations were undone, newer data stayed.
    Rollback,
    /// The backup from before the upgrade came back.
    Restore,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub database: String,
    /// Seconds since 1970.
    pub until: i64,
}

/// Older ones are of no use.
const LIMIT: usize = 50;
const SIZE_LIMIT: u64 = 1024 * 1024;

/// All of them, oldest first; none where the file cannot be read. Only for display: whoever writes or removes uses [`read`].
pub fn history(home: &Home) -> Vec<Change> {
    read(home).unwrap_or_default()
}

/// All of them, oldest first. A damaged file counts as empty; a failed read is an error, because the file may be whole.
fn read(home: &Home) -> io::Result<Vec<Change>> {
    let mut all: Vec<Change> = files::read_json_or_default(&path(home), SIZE_LIMIT)?;
    for backup in all.iter_mut().filter_map(|change| change.backup.as_mut()) {
        *backup = in_home(home, backup);
    }
    Ok(all)
}

/// A stored path as it is now. An absolute one, of an older release, may be of the place where the home was before.
fn in_home(home: &Home, stored: &Path) -> PathBuf {
    if stored.is_relative() {
        return home.root().join(stored);
    }
    let moved = stored.file_name().map(|name| home.backups().join(name));
    match moved {
        Some(moved) if !stored.exists() && moved.exists() => moved,
        _ => stored.to_owned(),
    }
}

/// The upgrades that lead from the oldest release to the one in force, oldest first: a rollback takes back those above
/// the release that it goes to.
pub fn way(changes: &[Change]) -> Vec<&Change> {
    let mut way: Vec<&Change> = Vec::new();
    for change in changes {
        match change.kind() {
            Kind::Upgrade => way.push(change),
            Kind::Rollback | Kind::Restore => {
                while way.last().is_some_and(|last| version_order::compare(&last.to, &change.to).is_gt()) {
                    way.pop();
                }
            }
        }
    }
    way
}

/// The release that a rollback from `version` leads to.
pub fn next_back(changes: &[Change], version: &Version) -> Option<Version> {
    way(changes).into_iter().rev().find(|change| change.to == *version).map(|change| change.from.clone())
}

/// Seconds of the last pause that was measured: of a restore where `of` says so, otherwise of a change that kept the data.
pub fn last_pause(changes: &[Change], of: Option<Kind>) -> Option<f64> {
    let is_restore = of == Some(Kind::Restore);
    changes.iter().rev().filter(|change| (change.kind() == Kind::Restore) == is_restore).find_map(|change| change.pause)
}

/// Sets the pause of the last change, measured to its end.
pub fn set_last_pause(home: &Home, seconds: f64) -> io::Result<()> {
    let mut all = read(home)?;
    if let Some(last) = all.last_mut() {
        last.pause = Some(seconds);
        write(home, &all)?;
    }
    Ok(())
}

/// The last change, if it went to that release, whichever way.
pub fn last_to(home: &Home, version: &Version) -> Option<Change> {
    history(home).pop().filter(|change| change.to == *version)
}

/// When that release was last gone back from; `None` when it was not, or came again since.
pub fn left_at<'a>(changes: &'a [Change], version: &Version) -> Option<&'a str> {
    let last = changes.iter().rev().find(|change| change.from == *version || change.to == *version)?;
    (last.from == *version && last.kind() != Kind::Upgrade).then_some(last.at.as_str())
}

/// The backups that lead from one kept release back to another. Pruning must not remove them, so a failed read is an error.
pub fn ways_back(home: &Home) -> io::Result<Vec<PathBuf>> {
    let is_kept = |version: &Version| stage::program_of(home, version).exists();
    let changes = read(home)?;
    let mut found: Vec<PathBuf> = way(&changes)
        .into_iter()
        .filter(|change| is_kept(&change.from) && is_kept(&change.to))
        .filter_map(|change| change.backup.clone())
        .collect();
    // What was there before the last way back, while the release that knows it is kept.
    let last = changes.last().filter(|change| change.kind() != Kind::Upgrade && is_kept(&change.from));
    found.extend(last.and_then(|change| change.backup.clone()));
    found.dedup();
    Ok(found)
}

/// The last change, where it is a rollback that another command has finished and no rollback has reported yet.
pub fn finished_by_another(changes: &[Change]) -> Option<&Change> {
    changes.last().filter(|change| change.finished_by_another)
}

/// Marks the last change, or takes the mark away.
pub fn set_finished_by_another(home: &Home, is_so: bool) -> io::Result<()> {
    let mut all = read(home)?;
    if let Some(last) = all.last_mut().filter(|last| last.kind() != Kind::Upgrade && last.finished_by_another != is_so)
    {
        last.finished_by_another = is_so;
        write(home, &all)?;
    }
    Ok(())
}

pub fn add(home: &Home, change: Change) -> io::Result<()> {
    let mut all = read(home)?;
    all.push(change);
    let excess = all.len().saturating_sub(LIMIT);
    all.drain(..excess);
    write(home, &all)
}

/// The snapshots that are there no more.
pub fn forget_snapshots(home: &Home, but: Option<&str>) -> io::Result<()> {
    let mut all = read(home)?;
    for change in &mut all {
        if change.snapshot.as_ref().is_some_and(|snapshot| Some(snapshot.database.as_str()) != but) {
            change.snapshot = None;
        }
    }
    write(home, &all)
}

/// The snapshot that is kept.
pub fn snapshot(home: &Home) -> Option<Snapshot> {
    history(home).into_iter().rev().find_map(|change| change.snapshot)
}

fn write(home: &Home, all: &[Change]) -> io::Result<()> {
    files::create_private_dir(&home.upgrade())?;
    let mut all = all.to_vec();
    for backup in all.iter_mut().filter_map(|change| change.backup.as_mut()) {
        if let Ok(below) = backup.strip_prefix(home.root()) {
            *backup = below.to_owned();
        }
    }
    files::write_atomic(&path(home), &serde_json::to_vec_pretty(&all)?, 0o600)
}

fn path(home: &Home) -> PathBuf {
    home.upgrade().join("history.json")
}

impl Change {
    pub fn now(kind: Kind, (from, to): (&Version, &Version), schema: (i64, i64), backup: Option<PathBuf>) -> Self {
        Self {
            at: clock::now_rfc3339(),
            from: from.clone(),
            to: to.clone(),
            kind: Some(kind),
            schema_from: schema.0,
            schema_to: schema.1,
            backup,
            snapshot: None,
            pause: None,
            finished_by_another: false,
        }
    }

    /// Where it is not written down, by the order of the releases.
    pub fn kind(&self) -> Kind {
        let is_down = version_order::compare(&self.to, &self.from).is_lt();
        self.kind.unwrap_or(if is_down { Kind::Rollback } else { Kind::Upgrade })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_history_is_neither_overwritten_nor_empty() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (from, to) = (Version::new(1, 0, 0), Version::new(1, 1, 0));
        let change = Change::now(Kind::Upgrade, (&from, &to), (1, 2), None);
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap(), std::slice::from_ref(&change));

        // A folder in its place fails every read, also as root.
        let aside = path(&home).with_extension("aside");
        std::fs::rename(path(&home), &aside).unwrap();
        std::fs::create_dir(path(&home)).unwrap();
        assert!(ways_back(&home).is_err());
        assert!(add(&home, change.clone()).is_err());
        assert!(forget_snapshots(&home, None).is_err());

        std::fs::remove_dir(path(&home)).unwrap();
        std::fs::rename(aside, path(&home)).unwrap();
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap().len(), 2);

        std::fs::write(path(&home), "not JSON").unwrap();
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap(), [change]);
    }

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    /// `0.1.0 0.2.0` is an upgrade or, as an older release wrote it, a change without a kind.
    fn changes(list: &[(&str, &str, Option<Kind>)]) -> Vec<Change> {
        let one = |(from, to, kind): &(&str, &str, Option<Kind>)| {
            let backup = Some(format!("/home/backups/{from}-{to}.tar.zst").into());
            Change { kind: *kind, ..Change::now(Kind::Upgrade, (&version(from), &version(to)), (1, 2), backup) }
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn a_rollback_takes_back_the_upgrades_above_it() {
        use Kind::{Restore, Rollback, Upgrade};
        let (up, down, restore) = (Some(Upgrade), Some(Rollback), Some(Restore));
        for (list, expected) in [
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "1.0.0", up)][..], &["0.2.0", "1.0.0"][..]),
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "1.0.0", up), ("1.0.0", "0.2.0", down)], &["0.2.0"]),
            // Twice back, and once by two at a time.
            (
                &[
                    ("0.1.0", "0.2.0", up),
                    ("0.2.0", "1.0.0", up),
                    ("1.0.0", "0.2.0", down),
                    ("0.2.0", "0.1.0", restore),
                ],
                &[],
            ),
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "1.0.0", up), ("1.0.0", "0.1.0", down)], &[]),
            (&[("0.1.0", "1.0.0", up), ("1.0.0", "1.1.0", up), ("1.1.0", "1.0.0", down)], &["1.0.0"]),
            // Up again over another release.
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "0.1.0", down), ("0.1.0", "1.0.0", up)], &["1.0.0"]),
            // As a release before kinds wrote it.
            (&[("0.1.0", "0.2.0", None), ("0.2.0", "0.1.0", None), ("0.1.0", "0.2.0", None)], &["0.2.0"]),
            (&[("0.2.0", "0.1.0", down)], &[]),
        ] {
            let changes = changes(list);
            let found: Vec<String> = way(&changes).iter().map(|change| change.to.to_string()).collect();
            assert_eq!(found, expected, "{list:?}");
        }
    }

    #[test]
    fn a_release_that_was_left_is_known_until_it_comes_again() {
        let up = ("0.1.0", "0.2.0", Some(Kind::Upgrade));
        let down = ("0.2.0", "0.1.0", Some(Kind::Restore));
        let left = |list: &[(&str, &str, Option<Kind>)]| left_at(&changes(list), &version("0.2.0")).is_some();
        assert!(left(&[up, down]) && left(&[up, down, up, down]));
        assert!(!left(&[up]) && !left(&[up, down, up]) && !left(&[]));
        assert!(!left(&[up, ("0.2.0", "1.0.0", Some(Kind::Upgrade))]), "it was left for a newer one");
    }

    #[test]
    fn a_rollback_that_another_command_has_finished_is_known_until_it_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (one, two) = (version("0.1.0"), version("0.2.0"));
        add(&home, Change::now(Kind::Upgrade, (&one, &two), (1, 2), None)).unwrap();
        set_finished_by_another(&home, true).unwrap();
        assert!(finished_by_another(&history(&home)).is_none(), "an upgrade is not repeated");
        add(&home, Change::now(Kind::Restore, (&two, &one), (2, 1), None)).unwrap();
        set_finished_by_another(&home, true).unwrap();
        assert_eq!(finished_by_another(&history(&home)).map(|change| &change.to), Some(&one));
        set_finished_by_another(&home, false).unwrap();
        assert!(finished_by_another(&history(&home)).is_none());
    }

    #[test]
    fn a_backup_is_found_where_the_home_has_moved_to() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let home = crate::home::resolve(Some(&old)).unwrap();
        std::fs::create_dir_all(home.backups()).unwrap();
        // By which a home is known.
        std::fs::create_dir_all(home.postgres_installs()).unwrap();
        let backup = home.backups().join("a.tar.zst");
        std::fs::write(&backup, "x").unwrap();
        let pair = (version("0.1.0"), version("0.2.0"));
        add(&home, Change::now(Kind::Upgrade, (&pair.0, &pair.1), (1, 2), Some(backup.clone()))).unwrap();
        assert_eq!(history(&home)[0].backup.as_ref(), Some(&backup));
        std::fs::rename(&old, &new).unwrap();
        let home = crate::home::resolve(Some(&new)).unwrap();
        let moved = home.backups().join("a.tar.zst");
        assert_eq!(history(&home)[0].backup.as_ref(), Some(&moved));
        // As an older release wrote it.
        let text = std::fs::read_to_string(path(&home)).unwrap();
        std::fs::write(path(&home), text.replace("backups/a.tar.zst", backup.to_str().unwrap())).unwrap();
        assert_eq!(history(&home)[0].backup.as_ref(), Some(&moved));
    }
}
