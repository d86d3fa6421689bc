//! What this program's own commands do, asked of them: backups, releases and examinations are theirs, and not the server's.
//! They print JSON, and tell what they are about line by line.

use super::api_error::ApiError;
use crate::home::Home;
use crate::sys::{command, env_vars};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::warn;

/// What is only looked at.
const QUICK: Duration = Duration::from_secs(25);
/// A large database takes its time.
const LONG: Duration = Duration::from_secs(6 * 60 * 60);
const MOST_BYTES: u64 = 8 * 1024 * 1024;
/// So many look at once; the others wait.
static ASKED: Semaphore = Semaphore::const_new(4);
/// Lines of one.
const MOST_LINES: usize = 50;
/// Those that have ended and are still told of.
const REMEMBERED: usize = 20;

/// A command that takes its time, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    pub id: u64,
    /// What it does: `backup`, `verify`.
    pub kind: &'static str,
    /// `running`, `done` or `failed`.
    pub status: &'static str,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// What it has said, oldest first.
    pub progress: Vec<String>,
    /// What it has printed.
    pub result: Option<Value>,
    /// Why it failed, in its own words.
    pub error: Option<String>,
}

#[derive(Default)]
pub struct OwnProgram {
    operations: Mutex<VecDeque<Operation>>,
}

impl OwnProgram {
    fn operations(&self) -> MutexGuard<'_, VecDeque<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_busy(&self) -> bool {
        self.operations().iter().any(|one| one.status == "running")
    }

    pub fn newest(&self) -> Option<Operation> {
        self.operations().back().cloned()
    }

    pub fn operation(&self, id: u64) -> Option<Operation> {
        self.operations().iter().find(|one| one.id == id).cloned()
    }

    /// Begins what takes its time. One at a time: they would wait for one another.
    pub fn begin(
        self: &Arc<Self>,
        home: &Home,
        kind: &'static str,
        arguments: Vec<String>,
    ) -> Result<Operation, ApiError> {
        self.work(home, kind, arguments).map(|(begun, _)| begun)
    }

    /// The same to its end. `None` where another is under way.
    pub async fn perform(
        self: &Arc<Self>,
        home: &Home,
        kind: &'static str,
        arguments: Vec<String>,
    ) -> Option<Operation> {
        let (begun, followed) = self.work(home, kind, arguments).ok()?;
        let ended = followed.await;
        // The one that follows it notes how it ended, whatever happens; the newest are remembered.
        let failed =
            || Operation { status: "failed", error: ended.err().map(|error| error.to_string()), ..begun.clone() };
        Some(self.operation(begun.id).unwrap_or_else(failed))
    }

    fn work(
        self: &Arc<Self>,
        home: &Home,
        kind: &'static str,
        arguments: Vec<String>,
    ) -> Result<(Operation, JoinHandle<()>), ApiError> {
        let begun = {
            let mut operations = self.operations();
            if let Some(other) = operations.iter().find(|one| one.status == "running") {
                let detail = format!("Operation {} ({}) is under way; ask again when it is done", other.id, other.kind);
                return Err(ApiError::new(StatusCode::CONFLICT, detail));
            }
            let begun = Operation {
                id: new_id(operations.back().map_or(0, |newest| newest.id)),
                kind,
                status: "running",
                started_at: Timestamp::now(),
                ended_at: None,
                progress: Vec::new(),
                result: None,
                error: None,
            };
            operations.push_back(begun.clone());
            if operations.len() > REMEMBERED {
                operations.pop_front();
            }
            begun
        };
        let (own, home, id) = (self.clone(), home.clone(), begun.id);
        // It goes on whoever waits for it, and if the server leaves.
        let work = tokio::task::spawn_blocking(move || {
            let tell = &mut |line: &str| own.change(id, |one| one.progress.push(plain(line)));
            let ended = run(&home, &arguments, LONG, tell);
            own.change(id, |one| {
                one.ended_at = Some(Timestamp::now());
                match ended {
                    Ok(Printed { is_good: true, json }) => (one.status, one.result) = ("done", Some(json)),
                    Ok(Printed { is_good: false, json }) => {
                        one.error = Some("it has found something wrong".to_owned());
                        (one.status, one.result) = ("failed", Some(json));
                    }
                    Err(error) => (one.status, one.error) = ("failed", Some(error)),
                }
            });
        });
        let own = self.clone();
        let followed = tokio::spawn(async move {
            // One that could not even be followed is over, too: nothing else could ever begin.
            if let Err(error) = work.await {
                own.change(id, |one| (one.status, one.error) = ("failed", Some(error.to_string())));
            }
        });
        Ok((begun, followed))
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Operation)) {
        if let Some(one) = self.operations().iter_mut().find(|one| one.id == id) {
            change(one);
            let excess = one.progress.len().saturating_sub(MOST_LINES);
            one.progress.drain(..excess);
        }
    }
}

/// A number that no server before this one has given: what becomes of another's operation is not this one's to say.
fn new_id(last: u64) -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0).max(last + 1)
}

/// Of a command that only looks: what it prints, or why not.
pub async fn ask(home: &Home, arguments: &[&str]) -> Result<Value, String> {
    // It is never closed.
    let _slot = ASKED.acquire().await;
    let (home, arguments) = (home.clone(), arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
    let asked = tokio::task::spawn_blocking(move || run(&home, &arguments, QUICK, &mut |_| {})).await;
    asked.unwrap_or_else(|error| Err(error.to_string())).map(|printed| printed.json)
}

/// The same for programs: 503 with what the command says of its failure.
pub async fn answer(home: &Home, arguments: &[&str]) -> Result<Value, ApiError> {
    ask(home, arguments).await.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))
}

/// What a command has printed, and whether it found all well.
struct Printed {
    is_good: bool,
    json: Value,
}

/// `Err` is what it says of its failure, with its hints.
fn run(home: &Home, arguments: &[String], limit: Duration, tell: &mut dyn FnMut(&str)) -> Result<Printed, String> {
    let program = env_vars::current_exe().map_err(|error| error.to_string())?;
    let mut own = Command::new(program);
    own.arg("--home").arg(home.root()).arg("--json").args(arguments);
    // Nobody is there to be told of readiness, and nothing of this server's is handed on.
    own.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    // The last line may be its failure, and is held back until that is known.
    let mut last = String::new();
    let mut told = |line: &str| {
        if !last.is_empty() {
            tell(&last);
        }
        line.clone_into(&mut last);
    };
    let (status, output) = command::output_and_errors_line_by_line(&mut own, limit, MOST_BYTES, &mut told)
        .map_err(|error| error.to_string())?;
    let failure: Option<Value> = serde_json::from_str(&last).ok().filter(|last: &Value| last.get("error").is_some());
    if failure.is_none() && !last.is_empty() {
        tell(&last);
    }
    let printed: Option<Value> = serde_json::from_slice(&output).ok().or(failure);
    match printed {
        Some(json) if json.get("error").is_none_or(Value::is_null) => Ok(Printed { is_good: status.success(), json }),
        Some(failure) => Err(in_words(&failure)),
        None => {
            warn!("leoflow {} printed no JSON: {status}", arguments.join(" "));
            Err(format!("leoflow {} ended with {status}", arguments.join(" ")))
        }
    }
}

/// An error with what follows from it, as the terminal shows it.
fn in_words(failure: &Value) -> String {
    let mut words = vec![failure["error"].as_str().unwrap_or("it failed").to_owned()];
    words.extend(failure["cause"].as_str().map(|cause| format!("because: {cause}")));
    words.extend(
        failure["hints"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|h| format!("hint: {h}")),
    );
    words.join("\n")
}

/// Without colours.
fn plain(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().find(char::is_ascii_alphabetic);
        } else if !letter.is_control() {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_is_told_with_what_to_do() {
        let failure = json!({"error": "no", "cause": "full", "hints": ["free some", "or more"], "exit_code": 1});
        assert_eq!(in_words(&failure), "no\nbecause: full\nhint: free some\nhint: or more");
        assert_eq!(in_words(&json!({"error": 5})), "it failed");
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("\u{1b}[32;1mok\u{1b}[0m done\r"), "ok done");
    }
}
