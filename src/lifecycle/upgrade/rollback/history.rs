//! `upgrade/history.json`: the upgrades and rollbacks of this home, each with the backup and snapshot that can undo it.

use crate::upgrade::release::{stage, version_order};
use leoflow_base::home::Home;
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::{files, folders};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// One upgrade or rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Time of the change, RFC 3339.
    pub at: String,
    pub from: Version,
    pub to: Version,
    /// `None` when written by a release that predates this field, see [`Change::kind`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    pub schema_from: i64,
    pub schema_to: i64,
    /// The backup taken before the change. The file has the path relative to the home, which may move.
    pub backup: Option<PathBuf>,
    /// The snapshot of the database before the change, while it is retained.
    pub snapshot: Option<Snapshot>,
    /// Seconds for which requests waited, or for which Leoflow was stopped for a restore. `None` if no instance ran or
    /// the change was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<f64>,
    /// True for an interrupted rollback that another command finished: a rerun of the interrupted command must not go
    /// back one more release.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    finished_by_another: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Upgrade,
    /// Undid the migrations; newer data stayed.
    Rollback,
    /// Restored the backup from before the upgrade.
    Restore,
}

/// A snapshot of the database that is retained for a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub database: String,
    /// Expiry, in seconds since 1970.
    pub until: i64,
}

/// Maximum number of entries; older ones are dropped.
const LIMIT: usize = 50;
const SIZE_LIMIT: u64 = 1024 * 1024;

/// All changes, oldest first; empty if the file cannot be read. Code that writes uses [`read`].
pub fn history(home: &Home) -> Vec<Change> {
    read(home).unwrap_or_default()
}

/// All changes, oldest first. A damaged file counts as empty; a failed read is an error, because the file may be
/// intact.
fn read(home: &Home) -> io::Result<Vec<Change>> {
    let mut entries: Vec<Change> = files::read_json_or_default(&home.upgrade_history(), SIZE_LIMIT)?;
    for backup in entries.iter_mut().filter_map(|change| change.backup.as_mut()) {
        *backup = resolve_stored_path(home, backup);
    }
    Ok(entries)
}

/// Resolves a stored path. An absolute path, from an older release, may point to the home's former location.
fn resolve_stored_path(home: &Home, stored: &Path) -> PathBuf {
    if stored.is_relative() {
        return home.root().join(stored);
    }
    let moved = stored.file_name().map(|name| home.backups().join(name));
    match moved {
        Some(moved) if !stored.exists() && moved.exists() => moved,
        _ => stored.to_owned(),
    }
}

/// The upgrades that led to the current release, oldest first, without the ones that a rollback has undone.
pub(crate) fn upgrade_path(changes: &[Change]) -> Vec<&Change> {
    let mut upgrades: Vec<&Change> = Vec::new();
    for change in changes {
        match change.kind() {
            Kind::Upgrade => upgrades.push(change),
            Kind::Rollback | Kind::Restore => {
                while upgrades.last().is_some_and(|last| version_order::compare(&last.to, &change.to).is_gt()) {
                    upgrades.pop();
                }
            }
        }
    }
    upgrades
}

/// The target of a rollback from `version`: the release from which it was installed; `None` if no upgrade led to it.
pub(crate) fn rollback_target(changes: &[Change], version: &Version) -> Option<Version> {
    upgrade_path(changes).into_iter().rev().find(|change| change.to == *version).map(|change| change.from.clone())
}

/// The last measured pause in seconds: of a restore if `kind` is `Restore`, otherwise of another change.
pub fn last_pause(changes: &[Change], kind: Option<Kind>) -> Option<f64> {
    let is_restore = kind == Some(Kind::Restore);
    changes.iter().rev().filter(|change| (change.kind() == Kind::Restore) == is_restore).find_map(|change| change.pause)
}

/// Sets the pause of the last change.
pub fn set_last_pause(home: &Home, seconds: f64) -> io::Result<()> {
    let mut entries = read(home)?;
    if let Some(last) = entries.last_mut() {
        last.pause = Some(seconds);
        write(home, &entries)?;
    }
    Ok(())
}

/// The last change, if it was an upgrade or rollback to `version`.
pub(crate) fn last_change_to(home: &Home, version: &Version) -> Option<Change> {
    history(home).pop().filter(|change| change.to == *version)
}

/// When `version` was last rolled back (RFC 3339); `None` when it never was, or when it was installed again since.
pub(crate) fn rolled_back_at<'a>(changes: &'a [Change], version: &Version) -> Option<&'a str> {
    let last = changes.iter().rev().find(|change| change.from == *version || change.to == *version)?;
    (last.from == *version && last.kind() != Kind::Upgrade).then_some(last.at.as_str())
}

/// The backups that a rollback to a release in `versions/` needs. Pruning must not remove them, so a failed read is an
/// error.
pub(crate) fn rollback_backups(home: &Home) -> io::Result<Vec<PathBuf>> {
    folders::entries(&home.versions())?;
    let is_kept = |version: &Version| stage::program_of(home, version).exists();
    let changes = read(home)?;
    let mut backups: Vec<PathBuf> = upgrade_path(&changes)
        .into_iter()
        .filter(|change| is_kept(&change.from) && is_kept(&change.to))
        .filter_map(|change| change.backup.clone())
        .collect();
    // The backup taken before the last rollback, if the release that can read it is still in `versions/`.
    let last = changes.last().filter(|change| change.kind() != Kind::Upgrade && is_kept(&change.from));
    backups.extend(last.and_then(|change| change.backup.clone()));
    backups.dedup();
    Ok(backups)
}

/// The last change, if it is a rollback that another command finished and no rollback command has reported yet.
pub(crate) fn finished_by_another(changes: &[Change]) -> Option<&Change> {
    changes.last().filter(|change| change.finished_by_another)
}

/// Whether a rollback command has reported the finished rollback to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Another command finished the rollback.
    No,
    Yes,
}

/// Sets or clears `finished_by_another` of the last change, if that is a rollback.
pub(crate) fn set_finished_by_another(home: &Home, reported: Reported) -> io::Result<()> {
    let is_marked = reported == Reported::No;
    let mut entries = read(home)?;
    if let Some(last) =
        entries.last_mut().filter(|last| last.kind() != Kind::Upgrade && last.finished_by_another != is_marked)
    {
        last.finished_by_another = is_marked;
        write(home, &entries)?;
    }
    Ok(())
}

/// Appends a change.
pub fn add(home: &Home, change: Change) -> io::Result<()> {
    let mut entries = read(home)?;
    entries.push(change);
    let excess = entries.len().saturating_sub(LIMIT);
    entries.drain(..excess);
    write(home, &entries)
}

/// Removes all snapshots except `keep` from the history, after their databases were dropped.
pub(crate) fn forget_snapshots(home: &Home, keep: Option<&str>) -> io::Result<()> {
    let mut entries = read(home)?;
    for change in &mut entries {
        if change.snapshot.as_ref().is_some_and(|snapshot| Some(snapshot.database.as_str()) != keep) {
            change.snapshot = None;
        }
    }
    write(home, &entries)
}

/// The newest retained snapshot.
pub fn snapshot(home: &Home) -> Option<Snapshot> {
    history(home).into_iter().rev().find_map(|change| change.snapshot)
}

fn write(home: &Home, entries: &[Change]) -> io::Result<()> {
    files::create_private_dir(&home.upgrade())?;
    let mut entries = entries.to_vec();
    for backup in entries.iter_mut().filter_map(|change| change.backup.as_mut()) {
        if let Ok(relative) = backup.strip_prefix(home.root()) {
            *backup = relative.to_owned();
        }
    }
    files::write_atomic(&home.upgrade_history(), &serde_json::to_vec_pretty(&entries)?, 0o600)
}

impl Change {
    /// A change that happens now. `schema` has the schema versions before and after the change.
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

    /// The kind; derived from the order of the versions when it is not recorded.
    pub fn kind(&self) -> Kind {
        let is_down = version_order::compare(&self.to, &self.from).is_lt();
        self.kind.unwrap_or(if is_down { Kind::Rollback } else { Kind::Upgrade })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_history_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (from, to) = (Version::new(1, 0, 0), Version::new(1, 1, 0));
        let change = Change::now(Kind::Upgrade, (&from, &to), (1, 2), None);
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap(), std::slice::from_ref(&change));

        // A folder at the file's path fails every read, even as root.
        let moved_away = home.upgrade_history().with_extension("aside");
        std::fs::rename(home.upgrade_history(), &moved_away).unwrap();
        std::fs::create_dir(home.upgrade_history()).unwrap();
        assert!(rollback_backups(&home).is_err());
        assert!(add(&home, change.clone()).is_err());
        assert!(forget_snapshots(&home, None).is_err());

        std::fs::remove_dir(home.upgrade_history()).unwrap();
        std::fs::rename(moved_away, home.upgrade_history()).unwrap();
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap().len(), 2);

        std::fs::write(home.upgrade_history(), "not JSON").unwrap();
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap(), [change]);
    }

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    /// Builds changes; `None` stands for one that an older release wrote without a kind.
    fn changes(list: &[(&str, &str, Option<Kind>)]) -> Vec<Change> {
        let change = |(from, to, kind): &(&str, &str, Option<Kind>)| {
            let backup = Some(format!("/home/backups/{from}-{to}.tar.zst").into());
            Change { kind: *kind, ..Change::now(Kind::Upgrade, (&version(from), &version(to)), (1, 2), backup) }
        };
        list.iter().map(change).collect()
    }

    #[test]
    fn a_rollback_undoes_the_upgrades_above_its_target() {
        use Kind::{Restore, Rollback, Upgrade};
        let (up, down, restore) = (Some(Upgrade), Some(Rollback), Some(Restore));
        for (list, expected) in [
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "1.0.0", up)][..], &["0.2.0", "1.0.0"][..]),
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "1.0.0", up), ("1.0.0", "0.2.0", down)], &["0.2.0"]),
            // Two single rollbacks, then one over two releases.
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
            // Upgraded again to another release.
            (&[("0.1.0", "0.2.0", up), ("0.2.0", "0.1.0", down), ("0.1.0", "1.0.0", up)], &["1.0.0"]),
            // As written by a release that predates kinds.
            (&[("0.1.0", "0.2.0", None), ("0.2.0", "0.1.0", None), ("0.1.0", "0.2.0", None)], &["0.2.0"]),
            (&[("0.2.0", "0.1.0", down)], &[]),
        ] {
            let changes = changes(list);
            let path: Vec<String> = upgrade_path(&changes).iter().map(|change| change.to.to_string()).collect();
            assert_eq!(path, expected, "{list:?}");
        }
    }

    #[test]
    fn a_rolled_back_release_is_known_until_it_is_reinstalled() {
        let up = ("0.1.0", "0.2.0", Some(Kind::Upgrade));
        let down = ("0.2.0", "0.1.0", Some(Kind::Restore));
        let is_rolled_back =
            |list: &[(&str, &str, Option<Kind>)]| rolled_back_at(&changes(list), &version("0.2.0")).is_some();
        assert!(is_rolled_back(&[up, down]) && is_rolled_back(&[up, down, up, down]));
        assert!(!is_rolled_back(&[up]) && !is_rolled_back(&[up, down, up]) && !is_rolled_back(&[]));
        assert!(!is_rolled_back(&[up, ("0.2.0", "1.0.0", Some(Kind::Upgrade))]), "it was replaced by a newer one");
    }

    #[test]
    fn a_rollback_finished_by_another_command_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (old, new) = (version("0.1.0"), version("0.2.0"));
        add(&home, Change::now(Kind::Upgrade, (&old, &new), (1, 2), None)).unwrap();
        set_finished_by_another(&home, Reported::No).unwrap();
        assert!(finished_by_another(&history(&home)).is_none(), "an upgrade is not repeated");
        add(&home, Change::now(Kind::Restore, (&new, &old), (2, 1), None)).unwrap();
        set_finished_by_another(&home, Reported::No).unwrap();
        assert_eq!(finished_by_another(&history(&home)).map(|change| &change.to), Some(&old));
        set_finished_by_another(&home, Reported::Yes).unwrap();
        assert!(finished_by_another(&history(&home)).is_none());
    }

    #[test]
    fn a_backup_is_found_after_the_home_has_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let home = leoflow_base::home::resolve(Some(&old)).unwrap();
        std::fs::create_dir_all(home.backups()).unwrap();
        // Marks the folder as a home.
        std::fs::create_dir_all(home.postgres_installs()).unwrap();
        let backup = home.backups().join("a.tar.zst");
        std::fs::write(&backup, "x").unwrap();
        let pair = (version("0.1.0"), version("0.2.0"));
        add(&home, Change::now(Kind::Upgrade, (&pair.0, &pair.1), (1, 2), Some(backup.clone()))).unwrap();
        assert_eq!(history(&home)[0].backup.as_ref(), Some(&backup));
        std::fs::rename(&old, &new).unwrap();
        let home = leoflow_base::home::resolve(Some(&new)).unwrap();
        let moved = home.backups().join("a.tar.zst");
        assert_eq!(history(&home)[0].backup.as_ref(), Some(&moved));
        // An absolute path, as an older release wrote it.
        let text = std::fs::read_to_string(home.upgrade_history()).unwrap();
        std::fs::write(home.upgrade_history(), text.replace("backups/a.tar.zst", backup.to_str().unwrap())).unwrap();
        assert_eq!(history(&home)[0].backup.as_ref(), Some(&moved));
    }
}
