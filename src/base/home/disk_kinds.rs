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
    /// A command that lists or removes unused data.
    pub command: Option<&'static str>,
}

/// Measures the space of each kind, within `time` for all of them. Blocks.
pub fn measure_kinds(home: &Home, time: Duration) -> Vec<DiskKind> {
    let clean = Some("leoflow db clean --dry-run");
    let [datastore, task_logs] = history(home);
    let kinds: [(&str, Vec<PathBuf>, Option<&str>); 8] = [
        ("Datastore", vec![datastore], clean),
        ("Backups", vec![home.backups()], Some("leoflow lite backups prune --dry-run")),
        ("Task logs", vec![task_logs], clean),
        ("Environments", vec![home.environments(), home.python()], Some("leoflow env prune --dry-run")),
        ("Releases", vec![home.versions(), home.upgrade()], Some("leoflow versions")),
        ("PostgreSQL and the web UI", vec![home.postgres_installs(), home.ui()], None),
        ("uv and its cache", vec![home.tools()], Some("leoflow env prune")),
        ("Logs", vec![home.logs()], None),
    ];
    let measure = measure_within(time);
    kinds.into_iter().map(|(name, folders, command)| DiskKind { name, usage: measure(&folders), command }).collect()
}

/// Measures the space of what grows with each run, within `time`. Blocks.
pub fn measure_history(home: &Home, time: Duration) -> DiskUsage {
    measure_within(time)(&history(home))
}

/// The folders of what grows with each run. That of the datastore does not exist if it is external.
fn history(home: &Home) -> [PathBuf; 2] {
    [home.postgres_data(), home.task_logs()]
}

/// Measures folders together; all calls share `time`, of which one folder takes at most half.
fn measure_within(time: Duration) -> impl Fn(&[PathBuf]) -> DiskUsage {
    let deadline = Instant::now() + time;
    let measure_folder = move |folder: &PathBuf| {
        let time = deadline.saturating_duration_since(Instant::now()).min(time / 2);
        measure(folder, Limits { time, entries: MAX_ENTRIES })
    };
    move |folders| folders.iter().map(measure_folder).fold(DiskUsage::default(), DiskUsage::plus)
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
        assert_eq!(measure_history(&home, Duration::from_secs(60)).bytes, 0);
        std::fs::create_dir_all(home.task_logs()).unwrap();
        std::fs::write(home.task_logs().join("1.log"), vec![b'x'; 50_000]).unwrap();
        assert!(measure_history(&home, Duration::from_secs(60)).bytes >= 50_000);
    }
}
