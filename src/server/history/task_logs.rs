//! Removes old task logs. The runs stay.

use super::plan::LogLimits;
use jiff::Timestamp;
use leoflow_base::home::{DELETED_TASK_LOGS, Home};
use leoflow_base::protocol::task_log;
use leoflow_base::sys::fs::{files, folders};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The logs of a run.
struct RunLogs {
    folder: PathBuf,
    /// When its newest file was written.
    written: SystemTime,
    bytes: u64,
}

impl RunLogs {
    /// Adds everything below a folder.
    fn add(&mut self, folder: &Path) -> io::Result<()> {
        for path in folders::entries(folder)? {
            match fs::symlink_metadata(&path) {
                Ok(meta) => {
                    self.bytes += meta.blocks() * 512;
                    if meta.is_dir() {
                        self.add(&path)?;
                    } else {
                        self.written = self.written.max(meta.modified()?);
                    }
                }
                // The run was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Lists the folders of logs over the limits, oldest first, with their sizes in bytes. The folders of `unfinished` runs
/// stay. Blocks.
pub fn excess(home: &Home, limits: &LogLimits, unfinished: &HashSet<PathBuf>) -> io::Result<Vec<(PathBuf, u64)>> {
    if limits.before.is_none() && limits.max_bytes.is_none() {
        return Ok(Vec::new());
    }
    let dags = match &limits.dag_ids {
        Some(dag_ids) => dag_ids.iter().map(|dag_id| task_log::folder_of_dag(home, dag_id)).collect(),
        None => folders::entries(&home.task_logs())?,
    };
    let mut runs = Vec::new();
    for dag in dags.iter().filter(|dag| !dag.ends_with(DELETED_TASK_LOGS) && dag.is_dir()) {
        for folder in folders::entries(dag)?.into_iter().filter(|run| run.is_dir()) {
            let mut logs = RunLogs { folder: folder.clone(), written: SystemTime::UNIX_EPOCH, bytes: 0 };
            logs.add(&folder)?;
            runs.push(logs);
        }
    }
    runs.sort_by(|a, b| (a.written, &a.folder).cmp(&(b.written, &b.folder)));
    let mut total: u64 = runs.iter().map(|run| run.bytes).sum();
    let mut excess = Vec::new();
    for run in runs {
        let is_old =
            limits.before.is_some_and(|before| Timestamp::try_from(run.written).is_ok_and(|time| time < before));
        let is_too_much = limits.max_bytes.is_some_and(|max| total > max);
        if (is_old || is_too_much) && !unfinished.contains(&run.folder) {
            total -= run.bytes;
            excess.push((run.folder, run.bytes));
        }
    }
    Ok(excess)
}

/// Removes the folders; returns the number of freed bytes. Blocks.
pub fn remove(excess: Vec<(PathBuf, u64)>) -> io::Result<u64> {
    let mut freed = 0;
    for (folder, bytes) in excess {
        files::remove_any(&folder)?;
        freed += bytes;
        // The folder of a DAG stays while it has other runs.
        if let Some(dag) = folder.parent() {
            let _ = fs::remove_dir(dag);
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_oldest_logs_go_and_those_of_unfinished_runs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (index, run) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let log = task_log::folder_of_run(&home, "dag", run).join("task/-1/1.log");
            fs::create_dir_all(log.parent().unwrap()).unwrap();
            fs::write(&log, vec![b'x'; 100_000]).unwrap();
            let written = base + Duration::from_secs(index as u64);
            fs::File::options().write(true).open(&log).unwrap().set_modified(written).unwrap();
        }
        let running = HashSet::from([task_log::folder_of_run(&home, "dag", "a")]);
        let names = |limits: &LogLimits| {
            let excess = excess(&home, limits, &running).unwrap();
            excess.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let before = Timestamp::try_from(base + Duration::from_secs(2)).unwrap();
        let old = LogLimits { before: Some(before), ..LogLimits::default() };
        assert_eq!(names(&old), ["b"]);
        assert_eq!(names(&LogLimits { dag_ids: Some(vec!["other".to_owned()]), ..old.clone() }), Vec::<String>::new());
        assert_eq!(names(&LogLimits { max_bytes: Some(250_000), ..LogLimits::default() }), ["b", "c"]);
        assert_eq!(names(&LogLimits { max_bytes: Some(1), ..LogLimits::default() }), ["b", "c", "d"]);
        let excess = excess(&home, &old, &running).unwrap();
        assert!(remove(excess).unwrap() >= 100_000 && !task_log::folder_of_run(&home, "dag", "b").exists());
        assert_eq!(names(&LogLimits::default()), Vec::<String>::new());
    }
}
