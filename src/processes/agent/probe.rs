//! Checks that the kernel and the file system support running tasks: a keeper runs a program that exits at once. Runs at
//! every start, because an instance whose tasks all fail must not look healthy.

use super::keepers::Keepers;
use crate::keeper::{Start, TaskFolder};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::transient::is_transient;
use leoflow_base::sys::{env_vars, may_fail};
use std::io;
use std::time::Duration;
use tracing::warn;

/// Time limit; a keeper and its program take some milliseconds.
const LIMIT: Duration = Duration::from_secs(20);
/// The exit of the probe's program, `leoflow --version`.
const EXPECTED: Exit = Exit::Code(0);

/// Why this machine cannot run tasks.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a probe did not end within {} s", LIMIT.as_secs())]
    Hangs,
    /// The keeper's own reason.
    #[error("{0}")]
    Keeper(String),
    #[error("the keeper of a probe has failed: see `leoflow lite logs keeper`")]
    NoOutcome,
    #[error("the process of a probe ended{}", .0.map(|exit| format!(" with {exit}")).unwrap_or_default())]
    Ended(Option<Exit>),
}

/// Runs the probe. A transient error is only logged: the agent starts, and tasks wait.
pub async fn run(home: &Home) -> Result<(), ProbeError> {
    let folder = TaskFolder::at(home.running_tasks().join(format!("probe-{}", std::process::id())));
    let verdict = match attempt(home, &folder).await {
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
async fn attempt(home: &Home, folder: &TaskFolder) -> Result<(), ProbeError> {
    may_fail("agent.probe")?;
    files::create_private_dir(folder.path())?;
    let mut keepers = Keepers::new(home);
    keepers.start(Start {
        folder: folder.path().to_owned(),
        program: env_vars::current_exe()?,
        arguments: vec!["--version".to_owned()],
        work_in: folder.path().to_owned(),
        log: folder.path().join("probe.log"),
        time_limit: None,
        warm: None,
    })?;
    // The first event is the end of the program, or that of the keeper.
    if tokio::time::timeout(LIMIT, keepers.next()).await.is_err() {
        return Err(ProbeError::Hangs);
    }
    match folder.outcome()? {
        Some(outcome) if outcome.exit == Some(EXPECTED) || outcome.transient => Ok(()),
        Some(outcome) => Err(outcome.problem.map_or(ProbeError::Ended(outcome.exit), ProbeError::Keeper)),
        None => Err(ProbeError::NoOutcome),
    }
}
