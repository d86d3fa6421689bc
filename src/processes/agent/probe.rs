//! Checks that the kernel and the file system support running tasks: a keeper keeps a program that exits at once. Runs
//! at every start, because an instance whose tasks all fail must not look healthy.

use super::folder::TaskFolder;
use super::keepers;
use super::task_files::{KeeperSpec, Spec};
use leoflow_base::home::Home;
use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::transient::is_transient;
use leoflow_base::sys::{env_vars, may_fail};
use leoflow_engine::model::keys::{InstanceKey, RunKey, TryKey};
use std::io;
use std::time::Duration;
use tracing::warn;

/// Time limit; a keeper and its program take some milliseconds.
const LIMIT: Duration = Duration::from_secs(20);
/// Exit code of the probe's program, `leoflow keep-task` without a folder: a usage error.
const EXPECTED: Exit = Exit::Code(2);

/// Why this machine cannot run tasks.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the keeper of a probe did not exit within {} s", LIMIT.as_secs())]
    Hangs,
    /// The keeper's own reason.
    #[error("{0}")]
    Keeper(String),
    #[error("the keeper of a probe ended without an error message")]
    Silent,
    #[error("the process of a probe ended{}", .0.map(|exit| format!(" with {exit}")).unwrap_or_default())]
    Ended(Option<Exit>),
}

/// Runs the probe. A transient error is only logged: the agent starts, and tasks wait.
pub async fn run(home: &Home) -> Result<(), ProbeError> {
    let folder = TaskFolder::at(home.running_tasks().join(format!("probe-{}", std::process::id())));
    let verdict = match attempt(&folder).await {
        Err(ProbeError::Io(error)) if is_transient(&error) => {
            warn!("the probe for running tasks failed: {error}");
            Ok(())
        }
        verdict => verdict,
    };
    folder.discard();
    verdict
}

/// Runs the program once under a keeper.
async fn attempt(folder: &TaskFolder) -> Result<(), ProbeError> {
    may_fail("agent.probe")?;
    let program = env_vars::current_exe()?;
    folder.write_spec(&Spec {
        key: TryKey {
            instance: InstanceKey::unmapped(RunKey { dag_id: String::new(), run_id: String::new() }, ""),
            try_number: 1,
        },
        keeper: KeeperSpec {
            program,
            arguments: vec!["keep-task".to_owned()],
            folder: folder.path().to_owned(),
            log: folder.path().join("probe.log"),
            time_limit: None,
        },
        task: serde_json::Map::new(),
    })?;
    let keeper = keepers::start_cold(folder)?;
    if tokio::time::timeout(LIMIT, keepers::wait_for(&keeper)).await.is_err() {
        keeper.signal(Signal::Kill);
        return Err(ProbeError::Hangs);
    }
    reaper::ended_child(keeper.pid);
    match folder.outcome()? {
        Some(outcome) if outcome.exit == Some(EXPECTED) || outcome.transient => Ok(()),
        Some(outcome) => Err(outcome.problem.map_or(ProbeError::Ended(outcome.exit), ProbeError::Keeper)),
        None => {
            Err(Some(folder.keeper_log()).filter(|log| !log.is_empty()).map_or(ProbeError::Silent, ProbeError::Keeper))
        }
    }
}
