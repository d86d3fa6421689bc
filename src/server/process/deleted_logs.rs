//! Removes the task logs of what is deleted: otherwise a new run with the same id continues an old log.

use leoflow_base::home::{DELETED_TASK_LOGS, Home};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{blocking, checkpoint, random};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tracing::warn;

/// A folder of logs that was moved away. It is moved back when this is dropped, so that a deletion that fails or is
/// cancelled loses no log.
#[must_use]
pub struct DeletedLogs {
    /// The original path, and where the logs are now; `None` when there were none.
    moved: Option<(PathBuf, PathBuf)>,
}

impl DeletedLogs {
    /// Moves `folder` away. Called before the deletion is committed: after it, a new run may write there at once.
    pub async fn set_aside(home: &Home, folder: PathBuf) -> Self {
        let root = home.task_logs().join(DELETED_TASK_LOGS);
        let moved = blocking::run(move || move_away(&root, folder)).await;
        match moved {
            Ok(Ok(moved)) => Self { moved },
            Ok(Err(error)) => {
                warn!("failed to remove task logs: {error}");
                Self { moved: None }
            }
            Err(_) => Self { moved: None },
        }
    }

    /// Removes the logs in the background, once the deletion is committed.
    pub fn remove(mut self) {
        checkpoint("logs.set_aside");
        if let Some((_, aside)) = self.moved.take() {
            drop(tokio::spawn(blocking::run(move || remove(&aside))));
        }
    }
}

impl Drop for DeletedLogs {
    fn drop(&mut self) {
        if let Some((folder, aside)) = self.moved.take()
            && let Err(error) = fs::rename(&aside, &folder)
        {
            warn!("the task logs in {} stay in {}: {error}", folder.display(), aside.display());
        }
    }
}

fn move_away(root: &Path, folder: PathBuf) -> io::Result<Option<(PathBuf, PathBuf)>> {
    if !files::is_there(&folder)? {
        return Ok(None);
    }
    files::create_private_dir(root)?;
    let aside = root.join(random::hex_256());
    match fs::rename(&folder, &aside) {
        Ok(()) => Ok(Some((folder, aside))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what an earlier server did not.
pub async fn remove_leftovers(home: Home) {
    // A failure is logged.
    drop(blocking::run(move || remove(&home.task_logs().join(DELETED_TASK_LOGS))).await);
}

fn remove(path: &Path) {
    if let Err(error) = files::remove_any(path) {
        warn!("failed to remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logs_come_back_unless_the_deletion_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let run = home.task_logs().join("dag/run");
        fs::create_dir_all(run.join("task/-1")).unwrap();
        drop(DeletedLogs::set_aside(&home, run.clone()).await);
        assert!(run.join("task/-1").is_dir());
        DeletedLogs::set_aside(&home, run.clone()).await.remove();
        assert!(!run.exists());
        DeletedLogs::set_aside(&home, run).await.remove();
        // A server that was killed has left one.
        let left = home.task_logs().join(DELETED_TASK_LOGS).join("left/task");
        fs::create_dir_all(&left).unwrap();
        remove_leftovers(home.clone()).await;
        assert!(!left.exists() && home.task_logs().join("dag").exists());
    }
}
