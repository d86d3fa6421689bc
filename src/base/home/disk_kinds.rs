//! The disk space that the home takes, by kind.

use super::Home;
use crate::sys::fs::disk_usage::{DiskUsage, Limits, measure};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Maximum number of files and folders that are measured for one kind; then its size is a lower bound.
const MAX_ENTRIES: usize = 200_000;

/// The disk space of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct DiskKind {
    pub name: &'static str,
    #[serde(flatten)]
    pub usage: DiskUsage,
    /// A command that shows or removes what is unused.
    pub command: Option<&'static str>,
}

/// Kinds that grow with each run.
pub const HISTORY: [&str; 2] = ["Datastore", "Task logs"];

/// Measures the space of each kind, within `time` for all of them. Blocks.
pub fn measure_kinds(home: &Home, time: Duration) -> Vec<DiskKind> {
    let deadline = Instant::now() + time;
    let measure_folder = |folder: &PathBuf| {
        let time = deadline.saturating_duration_since(Instant::now()).min(time / 2);
        measure(folder, Limits { time, entries: MAX_ENTRIES })
    };
    let clean = "leoflow db clean --dry-run";
    let kinds: [(&str, Vec<PathBuf>, Option<&str>); 8] = [
        // Does not exist if the datastore is external, which is not measured.
        ("Datastore", vec![home.postgres_data()], Some(clean)),
        ("Backups", vec![home.backups()], Some("leoflow lite backups prune --dry-run")),
        ("Task logs", vec![home.task_logs()], Some(clean)),
        ("Environments", vec![home.environments(), home.python()], Some("leoflow env prune --dry-run")),
        ("Releases", vec![home.versions(), home.upgrade()], Some("leoflow versions")),
        ("PostgreSQL and the web UI", vec![home.postgres_installs(), home.ui()], None),
        ("uv and its cache", vec![home.tools()], Some("leoflow env prune")),
        ("Logs", vec![home.logs()], None),
    ];
    let measured = kinds.into_iter().map(|(name, folders, command)| {
        let usage = folders.iter().map(measure_folder).fold(DiskUsage::default(), DiskUsage::plus);
        DiskKind { name, usage, command }
    });
    measured.collect()
}

/// The space of all kinds together.
pub fn total(kinds: &[DiskKind]) -> DiskUsage {
    kinds.iter().map(|kind| kind.usage).fold(DiskUsage::default(), DiskUsage::plus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().join("home") };
        home.create().unwrap();
        std::fs::write(home.logs().join("server.log"), vec![b'x'; 50_000]).unwrap();
        let kinds = measure_kinds(&home, Duration::from_secs(60));
        let logs = kinds.iter().find(|kind| kind.name == "Logs").unwrap();
        assert!(logs.usage.bytes >= 50_000 && kinds.iter().all(|kind| !kind.usage.is_partial));
        assert!(kinds.iter().all(|kind| kind.name == "Logs" || kind.usage.bytes == 0), "{kinds:?}");
        assert_eq!(total(&kinds).bytes, logs.usage.bytes);
        assert!(HISTORY.iter().all(|name| kinds.iter().any(|kind| kind.name == *name)));
    }
}
