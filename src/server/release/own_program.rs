//! Runs this program's own commands in other processes, for backups, upgrades and diagnostics. The server waits for
//! read-only commands. Commands that change something are called operations: they run independently of the server, and
//! the home records them.
//!
//! The functions behind the commands are those of `lifecycle::operation`, a crate above this one. They run in processes
//! of their own, not in the server, for safety:
//!
//! - A restore, an upgrade and a rollback stop this server and replace its program, so what performs them must outlive
//!   it. A backup that is under way need not start again because the server is restarted.
//! - A panic, or the kernel when memory is short, ends the operation and not the server with its API and scheduler.
//! - The memory of compression, of encryption and of a test restore goes back to the system when the operation ends.
//! - However the process ends, the system releases the operation lock and ends `pg_dump`, which dies with the thread
//!   that started it.

use crate::http::api_error::ApiError;
use axum::http::StatusCode;
use leoflow_base::home::Home;
use leoflow_base::home::lock;
use leoflow_base::home::operations::{self, Operation, Record, Status};
use leoflow_base::protocol::own_command::{self, CommandOutput, Failure};
use leoflow_base::sys::mutex;
use leoflow_base::sys::process::command;
use leoflow_base::sys::{blocking, env_vars};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::warn;

/// Timeout of read-only commands.
const QUERY_TIMEOUT: Duration = Duration::from_secs(25);
/// Concurrent read-only commands; others wait.
static QUERY_SLOTS: Semaphore = Semaphore::const_new(4);

/// Held while an operation is started.
static START_LOCK: Mutex<()> = Mutex::new(());

/// Starts an operation. Fails with 409 while another operation runs or a command holds the operation lock.
pub async fn begin(
    home: &Home,
    kind: &'static str,
    arguments: impl IntoIterator<Item = impl Into<String>>,
) -> Result<Operation, ApiError> {
    let (operation, wait) = start(home, kind, arguments).await?;
    // The operation continues if this server exits.
    tokio::spawn(blocking::run(wait));
    Ok(operation)
}

/// Runs an operation to its end, and returns it with its outcome. Fails only if it cannot be started.
pub async fn perform(
    home: &Home,
    kind: &'static str,
    arguments: impl IntoIterator<Item = impl Into<String>>,
) -> Result<Operation, ApiError> {
    let (operation, wait) = start(home, kind, arguments).await?;
    let reason = match blocking::run(wait).await {
        Ok(Some(ended)) => return Ok(ended),
        Ok(None) => "its outcome is unknown".to_owned(),
        Err(error) => error.to_string(),
    };
    Ok(Operation { status: Status::Failed, error: Some(reason), ..operation })
}

/// Waits for the end of an operation, and returns it with its outcome.
type Wait = Box<dyn FnOnce() -> Option<Operation> + Send>;

async fn start(
    home: &Home,
    kind: &'static str,
    arguments: impl IntoIterator<Item = impl Into<String>>,
) -> Result<(Operation, Wait), ApiError> {
    let (home, arguments) = (home.clone(), arguments.into_iter().map(Into::into).collect());
    let start_operation = move || {
        let _guard = mutex::lock(&START_LOCK);
        if let Some(other) = operations::running(&home) {
            let detail = format!("Operation {} ({}) is running; try again when it is done", other.id, other.kind);
            return Err(ApiError::conflict(detail));
        }
        if let Some(other) = lock::operation_holder(&home) {
            let detail =
                format!("`{}` (pid {}) is running; try again when it is done", other.command, other.process.pid);
            return Err(ApiError::conflict(detail));
        }
        let record_failed = |error: io::Error| {
            let detail = format!("Failed to record the operation: {error}; run leoflow doctor");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        let record = operations::begin(&home, kind, arguments).map_err(record_failed)?;
        let id = record.operation.id;
        match start_process(&home, id) {
            Ok(mut child) => {
                let wait: Wait = Box::new(move || {
                    wait_and_record(&home, id, &mut child);
                    operations::find(&home, id)
                });
                Ok((record.operation, wait))
            }
            Err(error) => {
                let _ = operations::end(&home, record, Err((None, error.to_string())));
                Err(ApiError::internal(&error))
            }
        }
    };
    blocking::run(start_operation).await?
}

/// Waits for the process. Records the operation's end if the process could not.
fn wait_and_record(home: &Home, id: u64, child: &mut Child) {
    let ended = match child.wait() {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    warn!("the process of operation {id} failed: {ended}; see logs/operation.log");
    // The command itself may still run although its parent process ended.
    let Some(record) = operations::read(home, id).filter(Record::is_abandoned) else { return };
    let reason = format!("its outcome was not recorded ({ended})\nhint: see logs/operation.log, and leoflow doctor");
    if let Err(error) = operations::end(home, record, Err((None, reason))) {
        warn!("failed to record the end of operation {id}: {error}");
    }
}

/// Returns the operation started last.
pub async fn newest(home: &Home) -> Option<Operation> {
    let home = home.clone();
    blocking::run(move || operations::newest(&home)).await.ok()?
}

/// Returns an operation by its number.
pub async fn find(home: &Home, id: u64) -> Option<Operation> {
    let home = home.clone();
    blocking::run(move || operations::find(&home, id)).await.ok()?
}

/// True while an operation runs.
pub async fn is_busy(home: &Home) -> bool {
    let home = home.clone();
    blocking::run(move || operations::running(&home).is_some()).await.unwrap_or(true)
}

/// Starts the process of an operation. It has its own process group, since it may replace this server, but stays in
/// this session, since processes in other sessions count as left behind by DAG files and are ended.
fn start_process(home: &Home, id: u64) -> io::Result<Child> {
    let mut process = own_command::command(&env_vars::current_exe()?, Some(home));
    process.arg("operation").arg(id.to_string()).process_group(0);
    // Keeps error output, such as a panic, which the process cannot record itself.
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(home.logs().join("operation.log"))?;
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command::spawn(&mut process)
}

/// Runs a read-only command; returns its JSON. Fails with 503 and the command's error text.
pub async fn ask(home: &Home, arguments: &[&str]) -> Result<Value, ApiError> {
    ask_within(home, arguments, QUERY_TIMEOUT).await
}

/// Like `ask`, but ends the command after `limit`.
pub async fn ask_within(home: &Home, arguments: &[&str], limit: Duration) -> Result<Value, ApiError> {
    // The semaphore is never closed.
    let slot = QUERY_SLOTS.acquire().await;
    let (home, arguments) = (home.clone(), arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>());
    let output = blocking::run(move || {
        // Held until the command ends, also if the caller stops waiting.
        let _slot = slot;
        let program = env_vars::current_exe().map_err(Failure::new)?;
        let mut process = own_command::command(&program, Some(&home));
        match own_command::run(process.args(&arguments), limit, &mut |_| {}, &mut |_| {}) {
            Ok(CommandOutput { json, .. }) => Ok(json),
            Err(failure) => {
                warn!("leoflow {}: {}", arguments.join(" "), failure.error);
                Err(failure)
            }
        }
    });
    let output = output.await.unwrap_or_else(|error| Err(Failure::new(error)));
    output.map_err(|failure| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, failure.to_string()))
}
