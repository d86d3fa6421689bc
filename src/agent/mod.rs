//! The agent: claims task instances, has each kept by a process of its own, and tells how they
//! ended. It may go at any time: tasks run on, and the next agent takes them over.

mod adopt;
mod ending;
mod environments;
mod finish;
mod folder;
mod hindrance;
mod keeper;
mod keepers;
mod limits;
mod log;
mod probe;
mod run;
mod secrets;
mod start;
mod stop;
mod take_over;
mod trigger_host;
mod trigger_troubles;
mod triggers;
mod warm;

pub use folder::{TaskFolder, TaskResult};
pub use keeper::run as keep_task;
pub use stop::{end_all, running};

use crate::config::{self, ConfigError};
use crate::home::Home;
use crate::postgres::credentials::CredentialsError;
use crate::postgres::{Credentials, Endpoint};
use crate::protocol::child::{Inheritance, keep_saying_alive};
use crate::schema::{self, SchemaError};
use crate::sys::files;
use crate::sys::flock::FileLock;
use crate::sys::process::ProcessId;
use std::fs::OpenOptions;
use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("this machine does not run tasks: {0}")]
    Probe(String),
}

/// Runs until told to leave.
pub async fn run(home: &Home, mut inheritance: Inheritance) -> Result<(), AgentError> {
    let leave = inheritance.until_told_to_leave()?;
    let notifier = inheritance.notifier();
    let endpoint = Endpoint::for_home(home);
    let credentials = Credentials::require(home)?;
    let config = config::load(&home.config())?.map(|loaded| loaded.config);
    let max_map_length = config.as_ref().map_or(config::DEFAULT_MAX_MAP_LENGTH, |config| config.max_map_length);
    let (workspace, python) = config.map(|config| (config.workspace, config.python)).unwrap_or_default();
    let application = credentials.application(&endpoint);
    files::create_private_dir(&home.running_tasks())?;
    // Beside the connection to the datastore: neither waits for the other.
    let probed = home.clone();
    let probe = tokio::task::spawn_local(async move { probe::run(&probed).await });
    let check = async {
        let client = endpoint.connect(&application).await.map_err(SchemaError::from)?;
        schema::require_current(&client, schema::known()).await?;
        let only = only_agent(home).await?;
        probe.await.map_err(io::Error::other)?.map_err(AgentError::Probe)?;
        Ok::<_, AgentError>(only)
    };
    tokio::pin!(leave);
    let _only = tokio::select! {
        () = &mut leave => return Ok(()),
        checked = check => checked?,
    };
    let boot_id = ProcessId::current().map(|own| own.boot_id).unwrap_or_default();
    let surroundings =
        start::Surroundings { home: home.clone(), workspace: workspace.unwrap_or_default(), max_map_length };
    let agent = run::Agent::new(surroundings, python, boot_id, notifier.clone());
    notifier.ready("waiting for tasks");
    let alive = tokio::task::spawn_local(keep_saying_alive(notifier.clone()));
    tokio::select! {
        () = leave => {}
        () = agent.run(&endpoint, &application) => {}
    }
    notifier.stopping();
    alive.abort();
    Ok(())
}

/// Waits for an agent that is on its way out.
async fn only_agent(home: &Home) -> io::Result<FileLock> {
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(home.agent_lock())?;
        if let Some(lock) = FileLock::try_exclusive(file)? {
            return Ok(lock);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
