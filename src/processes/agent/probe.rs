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

/// Runs the probe. The error is a text for users. A transient error is only logged: the agent starts, and tasks wait.
pub async fn run(home: &Home) -> Result<(), String> {
    let folder = TaskFolder::at(home.running_tasks().join(format!("probe-{}", std::process::id())));
    let verdict = match attempt(&folder).await {
        Ok(verdict) => verdict,
        Err(error) if is_transient(&error) => {
            warn!("the probe for running tasks failed: {error}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    folder.discard();
    verdict
}

/// Runs the program once under a keeper. The outer error means that the probe could not run; the inner one is its
/// result.
async fn attempt(folder: &TaskFolder) -> io::Result<Result<(), String>> {
    may_fail("agent.probe")?;
    let program = env_vars::current_exe()?;
    folder.write_spec(&Spec {
        key: TryKey {
            instance: InstanceKey::unmapped(RunKey { dag_id: String::new(), run_id: String::new() }, ""),
            try_number: 1,
        },
        keeper: KeeperSpec {
            program,
            arguments: vec![std::ffi::OsString::from("keep-task").into()],
            folder: folder.path().to_owned(),
            log: folder.path().join("probe.log"),
            time_limit: None,
        },
        task: serde_json::Map::new(),
    })?;
    let keeper = keepers::start_cold(folder)?;
    if tokio::time::timeout(LIMIT, keepers::wait_for(&keeper)).await.is_err() {
        keeper.signal(Signal::Kill);
        return Ok(Err(format!("the keeper of a probe did not exit within {} s", LIMIT.as_secs())));
    }
    reaper::ended_child(keeper.pid);
    let outcome = folder.outcome()?;
    let is_fine = outcome.as_ref().is_some_and(|outcome| outcome.exit == Some(EXPECTED) || outcome.transient);
    let log = folder.keeper_log();
    Ok(match outcome {
        _ if is_fine => Ok(()),
        Some(outcome) => match (outcome.problem, outcome.exit) {
            (Some(problem), _) => Err(problem),
            (None, Some(exit)) => Err(format!("the process of a probe ended with {exit}")),
            (None, None) => Err("the process of a probe ended".to_owned()),
        },
        None if log.is_empty() => Err("the keeper of a probe ended without an error message".to_owned()),
        None => Err(log),
    })
}
