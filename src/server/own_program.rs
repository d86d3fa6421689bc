//! What this program's own commands do, asked of them: backups, releases and examinations are theirs, and not the server's.
//! What only looks is waited for; what takes its time goes on without the server, and is written down in the home.

use super::api_error::ApiError;
use crate::home::Home;
use crate::home::lock;
use crate::home::operations::{self, Operation, Record, Status};
use crate::protocol::own_command::{self, Printed};
use crate::sys::{blocking, env_vars};
use axum::http::StatusCode;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::warn;

/// What is only looked at.
const QUICK: Duration = Duration::from_secs(25);
/// So many look at once; the others wait.
static ASKED: Semaphore = Semaphore::const_new(4);

#[derive(Default)]
pub struct OwnProgram {
    /// Held while one is begun.
    beginning: Mutex<()>,
}

impl OwnProgram {
    /// Begins what takes its time. One at a time: they would wait for one another.
    pub async fn begin(
        self: &Arc<Self>,
        home: &Home,
        kind: &'static str,
        arguments: Vec<String>,
    ) -> Result<Operation, ApiError> {
        let (begun, mut child) = self.start(home, kind, arguments).await?;
        let (home, id) = (home.clone(), begun.id);
        // It goes on if this server leaves.
        tokio::spawn(blocking::run(move || see_to_its_end(&home, id, &mut child)));
        Ok(begun)
    }

    /// The same to its end. An error where it could not be begun.
    pub async fn perform(
        self: &Arc<Self>,
        home: &Home,
        kind: &'static str,
        arguments: Vec<String>,
    ) -> Result<Operation, ApiError> {
        let (begun, mut child) = self.start(home, kind, arguments).await?;
        let (home, id) = (home.clone(), begun.id);
        let ended = blocking::run(move || {
            see_to_its_end(&home, id, &mut child);
            operations::find(&home, id).ok_or_else(|| "what became of it is not known".to_owned())
        });
        let ended = ended.await.unwrap_or_else(|error| Err(error.to_string()));
        Ok(ended.unwrap_or_else(|reason| Operation { status: Status::Failed, error: Some(reason), ..begun }))
    }

    async fn start(
        self: &Arc<Self>,
        home: &Home,
        kind: &'static str,
        arguments: Vec<String>,
    ) -> Result<(Operation, Child), ApiError> {
        let (own, home) = (self.clone(), home.clone());
        let work = move || {
            let _beginning = own.beginning.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(other) = operations::running(&home) {
                let detail = format!("Operation {} ({}) is under way; ask again when it is done", other.id, other.kind);
                return Err(ApiError::new(StatusCode::CONFLICT, detail));
            }
            if let Some(other) = lock::operation_holder(&home) {
                let detail =
                    format!("`{}` (pid {}) is under way; ask again when it is done", other.command, other.process.pid);
                return Err(ApiError::new(StatusCode::CONFLICT, detail));
            }
            let unwritten = |error: io::Error| {
                let detail = format!("It cannot be begun, because it cannot be written down: {error}; leoflow doctor");
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            };
            let record = operations::begin(&home, kind, arguments).map_err(unwritten)?;
            let id = record.operation.id;
            match start_process(&home, id) {
                Ok(child) => Ok((record.operation, child)),
                Err(error) => {
                    let _ = operations::end(&home, record, Err((None, error.to_string())));
                    Err(ApiError::internal(&error))
                }
            }
        };
        blocking::run(work).await.map_err(|error| ApiError::internal(&error))?
    }
}

/// Waits for it. Where it could not write down how it ended, that is done here.
fn see_to_its_end(home: &Home, id: u64, child: &mut Child) {
    let ended = match child.wait() {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    warn!("the process of operation {id} ended badly: {ended}; logs/operation.log may say why");
    // The command itself may go on without it.
    let Some(record) = operations::read(home, id).filter(Record::is_abandoned) else { return };
    let reason =
        format!("what became of it was not written down ({ended})\nhint: see logs/operation.log, and leoflow doctor");
    if let Err(error) = operations::end(home, record, Err((None, reason))) {
        warn!("that cannot be written down either: {error}");
    }
}

/// The last that was begun.
pub async fn newest(home: &Home) -> Option<Operation> {
    let home = home.clone();
    blocking::run(move || operations::newest(&home)).await.ok()?
}

/// One by its number.
pub async fn find(home: &Home, id: u64) -> Option<Operation> {
    let home = home.clone();
    blocking::run(move || operations::find(&home, id)).await.ok()?
}

/// Whether one is under way.
pub async fn is_busy(home: &Home) -> bool {
    let home = home.clone();
    blocking::run(move || operations::running(&home).is_some()).await.unwrap_or(true)
}

/// In a group of its own: what is asked of it may be to replace this server. In our session: what is in another, a DAG file
/// has left, and is ended.
fn start_process(home: &Home, id: u64) -> io::Result<Child> {
    let mut process = own_command::command(&env_vars::current_exe()?, Some(home));
    process.arg("operation").arg(id.to_string()).process_group(0);
    // What it cannot write down itself.
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(home.logs().join("operation.log"))?;
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    process.spawn()
}

/// Of a command that only looks: what it prints, or why not.
pub async fn ask(home: &Home, arguments: &[&str]) -> Result<Value, String> {
    // It is never closed.
    let _slot = ASKED.acquire().await;
    let (home, arguments) = (home.clone(), arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
    let asked = blocking::run(move || {
        let program = env_vars::current_exe().map_err(|error| error.to_string())?;
        let mut own = own_command::command(&program, Some(&home));
        match own_command::run(own.args(&arguments), QUICK, &mut |_| {}, &mut |_| {}) {
            Ok(Printed { json, .. }) => Ok(json),
            Err(failure) => {
                warn!("leoflow {}: {}", arguments.join(" "), failure.error);
                Err(failure.to_string())
            }
        }
    });
    asked.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// The same for programs: 503 with what the command says of its failure.
pub async fn answer(home: &Home, arguments: &[&str]) -> Result<Value, ApiError> {
    ask(home, arguments).await.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))
}
