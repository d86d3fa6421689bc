//! Computes the free disk space that a rollback needs. Pure; all sizes are bytes.

use serde::Serialize;

/// Sizes of the current data and of the newest backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub database: u64,
    /// Workspace files and task logs that go into a backup.
    pub files: u64,
    /// `None` without a backup.
    pub last: Option<LastBackup>,
}

/// The size of a backup and of its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBackup {
    pub archive: u64,
    pub database: u64,
    pub files: u64,
}

/// Sizes of the backup to restore: its files, and its database once restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub files: u64,
    pub database: u64,
}

/// Disk space for one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    #[serde(rename = "for")]
    pub purpose: &'static str,
    pub bytes: u64,
}

/// Space to leave free for the datastore. A restore that is part of a rollback reserves the same.
pub const RESERVE: u64 = 16 * 1024 * 1024;

/// The disk space that a rollback needs. `backup` comes from [`for_backup`]; `restored` is the backup to restore, or
/// `None` if the rollback undoes migrations.
pub(crate) fn for_rollback(backup: u64, database: u64, restored: Option<Restored>) -> Vec<Need> {
    let backup = Need { purpose: "a backup of the current data", bytes: backup };
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

/// The space that a backup needs while it is created: the archive and the spool, together two and a half times the
/// archive.
pub(crate) fn for_backup(sizes: &Sizes) -> u64 {
    // A dump has a quarter to a half of the database's size; added files may not compress at all.
    let archive_bytes = match sizes.last {
        Some(LastBackup { archive, database, files }) => archive
            .saturating_add(sizes.database.saturating_sub(database) / 2)
            .saturating_add(sizes.files.saturating_sub(files)),
        None => (sizes.database / 4).saturating_add(sizes.files),
    };
    archive_bytes.saturating_mul(5) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn a_small_instance_needs_little() {
        let last = Some(LastBackup { archive: 18_000, database: 9 * MB, files: 20_000 });
        let backup = for_backup(&Sizes { database: 9 * MB, files: 20_000, last });
        assert!(total(&for_rollback(backup, 9 * MB, None)) < 30 * MB);
        let restored = Restored { files: 30_000, database: 9 * MB };
        assert!(total(&for_rollback(backup, 9 * MB, Some(restored))) < 30 * MB);
    }

    #[test]
    fn data_added_since_the_last_backup_counts() {
        let last = Some(LastBackup { archive: 18_000, database: 9 * MB, files: 20_000 });
        let needed = |database, files, last| for_backup(&Sizes { database, files, last });
        assert!(needed(9 * MB, 2_000 * MB, last) > 2_000 * MB);
        assert!(needed(2_000 * MB, 20_000, last) > 1_000 * MB);
        assert!(needed(10 * MB, 500 * MB, None) > 500 * MB);
        // Deleted large files count with their size in that backup, and no more.
        let old = Some(LastBackup { archive: 1_000 * MB, database: 10 * MB, files: 1_000 * MB });
        assert!(needed(5_000 * MB, 0, old) < 10_000 * MB);
    }
}
