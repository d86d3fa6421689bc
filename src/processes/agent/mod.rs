//! The agent: claims task instances, has a keeper run them, and records how they ended. It may exit at any time: tasks run
//! on, and the next agent adopts them.

mod adopt;
mod environments;
mod finish;
mod keepers;
mod probe;
mod run;
mod running;
mod start;
mod start_backoff;
mod stop;
mod take_over;
mod task_context;
mod triggers;
mod try_outcome;
mod warm;

pub use stop::{end_all, running};

use leoflow_base::config::{self, ConfigError};
use leoflow_base::home::{Home, lock};
use leoflow_base::protocol::child::{Inheritance, Shutdown, send_heartbeats};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::fs::folders;
use leoflow_base::sys::is_portable;
use leoflow_base::sys::process::ProcessId;
use leoflow_postgres::cluster::leftovers;
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::schema::{self, SchemaError};
use leoflow_postgres::{Credentials, Endpoint};
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
    #[error("this machine cannot run tasks: {0}")]
    Probe(#[from] probe::ProbeError),
}

/// Runs the agent until TERM, or until the supervisor is gone.
pub async fn run(home: &Home, mut inheritance: Inheritance) -> Result<(), AgentError> {
    let shutdown = until_shutdown(home, &mut inheritance)?;
    let notifier = inheritance.notifier();
    let endpoint = Endpoint::for_home(home);
    let credentials = Credentials::require(home)?;
    let config = config::load(&home.config())?.map(|loaded| loaded.config);
    let max_map_length = config.as_ref().map_or(config::DEFAULT_MAX_MAP_LENGTH, |config| config.max_map_length);
    let (workspace, python) = config.map(|config| (config.workspace, config.python)).unwrap_or_default();
    let application = credentials.application(&endpoint);
    files::create_private_dir(&home.running_tasks())?;
    // Optional: without it, a burst of tasks takes longer on ext4.
    let _ = folders::scatter_subfolders(&home.running_tasks());
    // The probe runs while the agent connects to the datastore.
    let probe_home = home.clone();
    let probe = tokio::task::spawn_local(async move { probe::run(&probe_home).await });
    let check = async {
        let client = endpoint.connect(&application).await.map_err(SchemaError::from)?;
        schema::require_current(&client, schema::known()).await?;
        let held_lock = lock_for_agent(home).await?;
        probe.await.map_err(io::Error::other)??;
        Ok::<_, AgentError>(held_lock)
    };
    tokio::pin!(shutdown);
    let _agent_lock = tokio::select! {
        () = &mut shutdown => return Ok(()),
        checked = check => checked?,
    };
    let boot_id = ProcessId::current().map(|own| own.boot_id).unwrap_or_default();
    let context =
        task_context::TaskContext { home: home.clone(), workspace: workspace.unwrap_or_default(), max_map_length };
    let agent = run::Agent::new(context, python, boot_id, notifier.clone());
    notifier.ready("waiting for tasks");
    let heartbeats = tokio::task::spawn_local(send_heartbeats(notifier.clone()));
    tokio::select! {
        () = shutdown => {}
        () = agent.run(&endpoint, &application) => {}
    }
    notifier.stopping();
    heartbeats.abort();
    Ok(())
}

/// Completes when the agent should exit. In the portable half it asks a PostgreSQL whose supervisor was killed to stop; on
/// Linux, the kernel does.
fn until_shutdown(home: &Home, inheritance: &mut Inheritance) -> io::Result<impl Future<Output = ()> + use<>> {
    let supervisor = std::os::unix::process::parent_id();
    let (home, shutdown) = (home.clone(), inheritance.until_shutdown()?);
    Ok(async move {
        if shutdown.await == Shutdown::SupervisorGone && is_portable() {
            // The supervisor may still be exiting; a PostgreSQL of the next one is not ours.
            let holder = lock::holder(&home).and_then(|holder| u32::try_from(holder.process.pid).ok());
            if holder.is_none_or(|holder| holder == supervisor) {
                leftovers::interrupt(&home);
            }
        }
    })
}

/// Locks the home for one agent; waits for an earlier agent that is still exiting.
async fn lock_for_agent(home: &Home) -> io::Result<FileLock> {
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(home.agent_lock())?;
        if let Some(lock) = FileLock::try_exclusive(file)? {
            return Ok(lock);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
