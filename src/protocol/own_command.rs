//! A command of this program, run by another process of it: its last words are JSON, and what it is about comes line by
//! line.

use crate::home::Home;
use crate::sys::command;
use crate::sys::reaper::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A large database takes its time.
pub const LONG: Duration = Duration::from_secs(6 * 60 * 60);
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// What a command has printed, whether it found all well, and what it failed of all the same.
#[derive(Debug)]
pub struct Printed {
    pub is_good: bool,
    pub json: Value,
    pub failure: Option<Failure>,
}

impl Printed {
    /// Why not all was well; `None` where it was.
    pub fn problem(&self) -> Option<Failure> {
        let found = || Failure::new("it has found something wrong");
        (!self.is_good).then(|| self.failure.clone().unwrap_or_else(found))
    }
}

/// What a command says of its failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    pub error: String,
    pub cause: Option<String>,
    pub hints: Vec<String>,
    pub exit_code: Option<u8>,
}

impl Failure {
    pub fn new(error: impl ToString) -> Self {
        Self { error: error.to_string(), ..Self::default() }
    }

    fn read(json: &Value) -> Self {
        serde_json::from_value(json.clone()).unwrap_or_else(|_| Self::new("it failed"))
    }
}

/// With what follows from it, as the terminal shows it.
impl std::fmt::Display for Failure {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.error)?;
        self.cause.iter().try_for_each(|cause| write!(to, "\nbecause: {cause}"))?;
        self.hints.iter().try_for_each(|hint| write!(to, "\nhint: {hint}"))
    }
}

/// `program` for a home, or for every instance, printing JSON.
pub fn command(program: &Path, home: Option<&Home>) -> Command {
    let mut own = Command::new(program);
    if let Some(home) = home {
        own.arg("--home").arg(home.root());
    }
    own.arg("--json");
    // Nobody is there to be told of readiness, and nothing of a server is handed on.
    own.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    own
}

/// Runs it to its end. `begun` is told its pid, `tell` what it says.
pub fn run(
    own: &mut Command,
    limit: Duration,
    begun: &mut dyn FnMut(i32),
    tell: &mut dyn FnMut(&str),
) -> Result<Printed, Failure> {
    // The last line may be its failure, which is held back until that is known.
    let mut last = String::new();
    let mut told = |line: &str| {
        if !last.is_empty() {
            tell(&plain(&std::mem::take(&mut last)));
        }
        match line.starts_with('{') {
            true => line.clone_into(&mut last),
            false => tell(&plain(line)),
        }
    };
    let (status, output) =
        command::output_and_errors_line_by_line(own, limit, MOST_BYTES, begun, &mut told).map_err(|error| Failure {
            hints: vec!["leoflow lite status".to_owned()],
            ..Failure::new(format!("{} did not come to its end: {error}", own.get_program().display()))
        })?;
    let failure: Option<Value> = serde_json::from_str(&last).ok().filter(|last: &Value| last.get("error").is_some());
    if failure.is_none() && !last.is_empty() {
        tell(&plain(&last));
    }
    let printed: Option<Value> = serde_json::from_slice(&output).ok();
    match (printed, failure) {
        (Some(json), failure) if json.get("error").is_none_or(Value::is_null) => {
            Ok(Printed { is_good: status.success(), json, failure: failure.as_ref().map(Failure::read) })
        }
        (Some(failure), _) | (None, Some(failure)) => Err(Failure::read(&failure)),
        (None, None) => Err(Failure::new(format!("it ended with {}", Exit::from(status)))),
    }
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

    fn shell(script: &str) -> (Result<Printed, Failure>, Vec<String>) {
        let mut said = Vec::new();
        let mut own = Command::new("sh");
        let done = run(own.args(["-c", script]), LONG, &mut |pid| assert!(pid > 0), &mut |line| said.push(line.into()));
        (done, said)
    }

    #[test]
    fn a_result_a_finding_a_failure_and_a_silent_end_are_told_apart() {
        let (done, said) = shell(r#"echo one >&2; printf '\033[32;1mok\033[0m done\r\n' >&2; echo '{"a":1}'"#);
        let done = done.unwrap();
        assert_eq!((done.is_good, done.json, said), (true, json!({"a": 1}), vec!["one".into(), "ok done".into()]));
        assert!(!shell(r#"echo '{"ok":false}'; exit 1"#).0.unwrap().is_good);
        let (done, said) =
            shell(r#"echo one >&2; echo '{"error":"no","cause":"full","hints":["free some"]}' >&2; exit 3"#);
        assert_eq!(done.unwrap_err().to_string(), "no\nbecause: full\nhint: free some");
        assert_eq!(said, ["one"]);
        // What was done before it failed is printed, too.
        let (done, _) = shell(r#"echo '{"status":"rolled_back"}'; echo '{"error":"no","exit_code":1}' >&2; exit 1"#);
        let done = done.unwrap();
        assert_eq!(done.failure, Some(Failure { exit_code: Some(1), ..Failure::new("no") }));
        assert_eq!((done.is_good, &done.json["status"]), (false, &json!("rolled_back")));
        assert!(shell("exit 4").0.unwrap_err().error.contains('4'));
        assert_eq!(Failure::read(&json!({"error": 5})).error, "it failed");
    }
}
