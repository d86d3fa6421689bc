//! Removes the backups that `retention` selects.

use super::retention::Excess;
use leoflow_base::sys::fs::files;
use std::io;
use std::path::PathBuf;

/// A backup that cannot be removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {path}: {source}")]
pub struct PruneError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Removes the backups. Continues after an error and returns the first one.
pub fn prune(excess: &[Excess]) -> Result<(), PruneError> {
    let mut outcome = Ok(());
    for backup in excess {
        let removed = files::remove_any(&backup.path);
        outcome = outcome.and(removed.map_err(|source| PruneError { path: backup.path.clone(), source }));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::retention::RemovalReason;
    use super::*;

    #[test]
    fn an_error_does_not_keep_the_other_backups() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-file");
        let last = folder.path().join("last");
        std::fs::write(&file, "").unwrap();
        std::fs::write(&last, "").unwrap();
        // A path below a file cannot be removed.
        let paths = [file.join("below"), last.clone()];
        let excess = paths.map(|path| Excess { path, size_bytes: 0, why: RemovalReason::Count });
        assert_eq!(prune(&excess).unwrap_err().path, file.join("below"));
        assert!(!last.exists());
    }
}
