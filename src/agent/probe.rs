//! Whether this machine gives what running a task needs of its kernel and file system: a keeper keeps a program that ends
//! at once. Made at every start, because an instance whose tasks all fail must not look healthy.

use super::folder::{KeeperSpec, Spec, TaskFolder};
use super::keepers;
use crate::engine::keys::{RunKey, TryKey};
use crate::home::Home;
use crate::sys::process::Signal;
use crate::sys::reaper::{self, Exit};
use crate::sys::transient::is_transient;
use crate::sys::{env_vars, may_fail};
use std::io;
use std::time::Duration;
use tracing::warn;

/// A keeper and its program take some milliseconds.
const LIMIT: Duration = Duration::from_secs(20);
/// What the program, `keep-task` without a folder, ends with: wrong usage.
const EXPECTED: Exit = Exit::Code(2);

/// The error says what does not work. An error that passes is no reason against a start: tasks wait for it.
pub async fn run(home: &Home) -> Result<(), String> {
    let folder = TaskFolder::at(home.running_tasks().join(format!("probe-{}", std::process::id())));
    let answer = match attempt(&folder).await {
        Ok(answer) => answer,
        Err(error) if is_transient(&error) => {
            warn!("the probe of tasks: {error}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    folder.discard();
    answer
}

async fn attempt(folder: &TaskFolder) -> io::Result<Result<(), String>> {
    may_fail("agent.probe")?;
    let program = env_vars::current_exe()?;
    folder.write_spec(&Spec {
        key: TryKey {
            run: RunKey { dag_id: String::new(), run_id: String::new() },
            task_id: String::new(),
            map_index: -1,
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
        return Ok(Err(format!("its keeper does not end within {} s", LIMIT.as_secs())));
    }
    reaper::ended_child(keeper.pid);
    let outcome = folder.outcome()?;
    let is_fine = outcome.as_ref().is_some_and(|outcome| outcome.exit == Some(EXPECTED) || outcome.transient);
    let log = folder.keeper_log();
    Ok(match outcome {
        _ if is_fine => Ok(()),
        Some(outcome) => match (outcome.problem, outcome.exit) {
            (Some(problem), _) => Err(problem),
            (None, Some(exit)) => Err(format!("its process ended with {exit}")),
            (None, None) => Err("its process ended".to_owned()),
        },
        None if log.is_empty() => Err("its keeper ended without an error message".to_owned()),
        None => Err(log),
    })
}
