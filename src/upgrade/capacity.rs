//! How much free disk a rollback needs, and for what. Pure; all sizes are bytes.

use serde::Serialize;

/// What is there now, and what the newest backup says about how well it packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub database: u64,
    /// What a backup takes of the workspace and of the task logs.
    pub files: u64,
    pub packing: Option<Packing>,
}

/// A backup: its own size, and the size of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    pub packed: u64,
    pub unpacked: u64,
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

/// What a rollback writes: `backup` is what a backup takes, see [`of_backup`]; `restored` is the one that comes back, `None`
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
    let packed = match sizes.packing {
        Some(Packing { packed, unpacked }) if unpacked > 0 => {
            let content = u128::from(sizes.database.saturating_add(sizes.files));
            let packed = content * u128::from(packed) / u128::from(unpacked);
            // Files that were added since may not pack as well.
            u64::try_from(packed).unwrap_or(u64::MAX).saturating_add(packed as u64 / 4)
        }
        // A dump is a quarter of its database; files may not pack at all.
        _ => (sizes.database / 4).saturating_add(sizes.files),
    };
    packed.saturating_mul(5) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn a_small_instance_needs_little() {
        let packing = Some(Packing { packed: 18_000, unpacked: 9 * MB });
        let sizes = Sizes { database: 9 * MB, files: 20_000, packing };
        let backup = of_backup(&sizes);
        assert!(total(&of_rollback(backup, 9 * MB, None)) < 30 * MB);
        let restored = Restored { files: 30_000, database: 9 * MB };
        assert!(total(&of_rollback(backup, 9 * MB, Some(restored))) < 30 * MB);
    }

    #[test]
    fn the_workspace_and_the_logs_count() {
        let sizes = |files, packing| Sizes { database: 10 * MB, files, packing };
        let packing = Some(Packing { packed: 50 * MB, unpacked: 100 * MB });
        let needed = |sizes: Sizes| of_backup(&sizes);
        assert!(needed(sizes(500 * MB, None)) >= 1_250 * MB);
        let halved = needed(sizes(500 * MB, packing));
        assert!((637 * MB..1_250 * MB).contains(&halved), "{halved}");
        assert_eq!(needed(sizes(0, Some(Packing { packed: 0, unpacked: 0 }))), needed(sizes(0, None)));
    }
}
