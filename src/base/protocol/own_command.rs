//! Runs a command of this program as a subprocess: its result is JSON on standard output, its progress comes line by
//! line on standard error.

use crate::home::Home;
use crate::sys::process::command;
use crate::sys::process::reaper::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time limit for commands that may copy a large database.
pub const LONG: Duration = Duration::from_secs(6 * 60 * 60);
const MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;

/// The result of a command: its JSON output, whether it exited with success, and a failure that it reported in
/// addition.
#[derive(Debug)]
pub struct CommandOutput {
    pub is_success: bool,
    pub json: Value,
    pub failure: Option<Failure>,
}

impl CommandOutput {
    /// The failure; `None` after a success.
    pub fn problem(&self) -> Option<Failure> {
        let unnamed = || Failure::new("the command found a problem");
        (!self.is_success).then(|| self.failure.clone().unwrap_or_else(unnamed))
    }
}

/// A failure as a command prints it in JSON.
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

    fn from_json(json: &Value) -> Self {
        serde_json::from_value(json.clone()).unwrap_or_else(|_| Self::new("the command failed"))
    }
}

/// The error, its cause and its hints, as the terminal shows them.
impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.error)?;
        self.cause.iter().try_for_each(|cause| write!(formatter, "\nbecause: {cause}"))?;
        self.hints.iter().try_for_each(|hint| write!(formatter, "\nhint: {hint}"))
    }
}

/// Builds a command of `program` that prints JSON, for `home`; `None` for a command that applies to every instance.
pub fn command(program: &Path, home: Option<&Home>) -> Command {
    let mut command = Command::new(program);
    if let Some(home) = home {
        command.arg("--home").arg(home.root());
    }
    command.arg("--json");
    // The command must not notify our parent of readiness, or inherit a server's listeners.
    command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command
}

/// Runs a command to its end, for at most `limit`. `on_start` receives its pid, `on_line` each line of its progress.
pub fn run(
    own: &mut Command,
    limit: Duration,
    on_start: &mut dyn FnMut(i32),
    on_line: &mut dyn FnMut(&str),
) -> Result<CommandOutput, Failure> {
    // The last line may be the failure as JSON, so a line that starts with `{` is held back until the next one.
    let mut last = String::new();
    let mut hold_back_last = |line: &str| {
        if !last.is_empty() {
            on_line(&without_control_characters(&std::mem::take(&mut last)));
        }
        match line.starts_with('{') {
            true => line.clone_into(&mut last),
            false => on_line(&without_control_characters(line)),
        }
    };
    let (status, output) =
        command::output_and_errors_line_by_line(own, limit, MAX_OUTPUT_BYTES, on_start, &mut hold_back_last).map_err(
            |error| Failure {
                hints: vec!["leoflow lite status".to_owned()],
                ..Failure::new(format!("{} did not finish: {error}", own.get_program().display()))
            },
        )?;
    let failure: Option<Value> = serde_json::from_str(&last).ok().filter(|last: &Value| last.get("error").is_some());
    if failure.is_none() && !last.is_empty() {
        on_line(&without_control_characters(&last));
    }
    let printed: Option<Value> = serde_json::from_slice(&output).ok();
    match (printed, failure) {
        (Some(json), failure) if json.get("error").is_none_or(Value::is_null) => {
            Ok(CommandOutput { is_success: status.success(), json, failure: failure.as_ref().map(Failure::from_json) })
        }
        (Some(failure), _) | (None, Some(failure)) => Err(Failure::from_json(&failure)),
        (None, None) => Err(Failure::new(format!("the command ended with {}", Exit::from(status)))),
    }
}

/// Removes colours and control characters.
fn without_control_characters(line: &str) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // An escape sequence ends with a letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else if !character.is_control() {
            cleaned.push(character);
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shell(script: &str) -> (Result<CommandOutput, Failure>, Vec<String>) {
        let mut lines = Vec::new();
        let mut own = Command::new("sh");
        let done =
            run(own.args(["-c", script]), LONG, &mut |pid| assert!(pid > 0), &mut |line| lines.push(line.into()));
        (done, lines)
    }

    #[test]
    fn distinguishes_result_finding_failure_and_silent_end() {
        let (done, lines) = shell(r#"echo one >&2; printf '\033[32;1mok\033[0m done\r\n' >&2; echo '{"a":1}'"#);
        let done = done.unwrap();
        assert_eq!((done.is_success, done.json, lines), (true, json!({"a": 1}), vec!["one".into(), "ok done".into()]));
        assert!(!shell(r#"echo '{"ok":false}'; exit 1"#).0.unwrap().is_success);
        let (done, lines) =
            shell(r#"echo one >&2; echo '{"error":"no","cause":"full","hints":["free some"]}' >&2; exit 3"#);
        assert_eq!(done.unwrap_err().to_string(), "no\nbecause: full\nhint: free some");
        assert_eq!(lines, ["one"]);
        // A command that fails halfway also prints the result so far.
        let (done, _) = shell(r#"echo '{"status":"rolled_back"}'; echo '{"error":"no","exit_code":1}' >&2; exit 1"#);
        let done = done.unwrap();
        assert_eq!(done.failure, Some(Failure { exit_code: Some(1), ..Failure::new("no") }));
        assert_eq!((done.is_success, &done.json["status"]), (false, &json!("rolled_back")));
        assert!(shell("exit 4").0.unwrap_err().error.contains('4'));
        assert_eq!(Failure::from_json(&json!({"error": 5})).error, "the command failed");
    }
}
