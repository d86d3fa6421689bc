//! How much free disk a rollback needs, and for what. Pure; all sizes are bytes.

use serde::Serialize;

/// Current sizes, and those of the newest backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub database: u64,
    /// What a backup takes of the workspace and of the task logs.
    pub files: u64,
    pub last: Option<LastBackup>,
}

/// A backup: its own size, and the sizes of what went into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBackup {
    pub archive: u64,
    pub database: u64,
    pub files: u64,
}

/// The backup that comes back: its files, and the database that it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub files: u64,
    pub database: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    #[serde(rename = "for")]
    pub purpose: &'static str,
    pub bytes: u64,
}

/// For the datastore to go on. A restore that belongs to a rollback keeps the same.
pub const RESERVE: u64 = 16 * 1024 * 1024;

/// The disk space that a rollback needs: `backup` is what a backup takes, see [`of_backup`]; `restored` is the one that comes back, `None`
/// where migrations are undone.
pub fn of_rollback(backup: u64, database: u64, restored: Option<Restored>) -> Vec<Need> {
    let backup = Need { purpose: "a backup of what is there now", bytes: backup };
    let reserve = Need { purpose: "reserve", bytes: RESERVE };
    match restored {
        None => vec![backup, Need { purpose: "a copy of the database", bytes: database }, reserve],
        Some(Restored { files, database }) => vec![
            backup,
            Need { purpose: "the backup's files", bytes: files },
            Need { purpose: "the backup's database", bytes: database },
            reserve,
        ],
    }
}

pub fn total(needs: &[Need]) -> u64 {
    needs.iter().map(|need| need.bytes).sum()
}

/// While it is made: the archive, and the pieces that it is made of: together two and a half times the archive.
pub fn of_backup(sizes: &Sizes) -> u64 {
    // A dump is a quarter to a half of its database; what was added to the files may not pack at all.
    let packed = match sizes.last {
        Some(LastBackup { archive, database, files }) => archive
            .saturating_add(sizes.database.saturating_sub(database) / 2)
            .saturating_add(sizes.files.saturating_sub(files)),
        None => (sizes.database / 4).saturating_add(sizes.files),
    };
    packed.saturating_mul(5) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn a_small_instance_needs_little() {
        let last = Some(LastBackup { archive: 18_000, database: 9 * MB, files: 20_000 });
        let backup = of_backup(&Sizes { database: 9 * MB, files: 20_000, last });
        assert!(total(&of_rollback(backup, 9 * MB, None)) < 30 * MB);
        let restored = Restored { files: 30_000, database: 9 * MB };
        assert!(total(&of_rollback(backup, 9 * MB, Some(restored))) < 30 * MB);
    }

    #[test]
    fn what_was_added_since_the_last_backup_counts() {
        let last = Some(LastBackup { archive: 18_000, database: 9 * MB, files: 20_000 });
        let needed = |database, files, last| of_backup(&Sizes { database, files, last });
        assert!(needed(9 * MB, 2_000 * MB, last) > 2_000 * MB);
        assert!(needed(2_000 * MB, 20_000, last) > 1_000 * MB);
        assert!(needed(10 * MB, 500 * MB, None) > 500 * MB);
        // Large files that are gone cost what they cost then, and no more.
        let old = Some(LastBackup { archive: 1_000 * MB, database: 10 * MB, files: 1_000 * MB });
        assert!(needed(5_000 * MB, 0, old) < 10_000 * MB);
    }
}
