//! Shows a run: as a table, or followed until it ends.

use super::run_inputs::read_date;
use super::task_names;
use crate::api_client::{Api, dag_path, encode, lite_dag_path, run_path};
use crate::args::run_args::RunArgs;
use crate::error::Error;
use crate::terminal::printer::Printer;
use jiff::Timestamp;
use leoflow_base::sys::shell;
use leoflow_engine::model::keys::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A run as the server describes it, and as `runs show --json` prints it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RunView {
    pub dag_id: String,
    pub dag_run_id: String,
    pub state: String,
    pub logical_date: Option<String>,
    pub start_date: Option<String>,
    pub end_date: Option<String>,
    #[serde(skip_serializing)]
    pub is_paused: bool,
    /// Value for `changed_after` that continues after this response.
    #[serde(default, skip_serializing)]
    pub as_of: Option<String>,
    pub task_instances: Vec<InstanceView>,
    /// What the run or its tasks wait for; only in a response without `changed_after`.
    #[serde(default, skip_serializing)]
    pub waiting: Vec<WaitingView>,
    /// The callbacks of the run's end that failed; only in a response without `changed_after`.
    #[serde(default)]
    pub callback_failures: Vec<CallbackFailure>,
}

/// A callback of the DAG or of a killed try, a listener, or an e-mail, that failed.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct CallbackFailure {
    pub time: String,
    /// Its name; `None` if the process of the callbacks failed.
    pub callback: Option<String>,
    /// The try that failed; absent for a callback of the run.
    #[serde(flatten)]
    pub of_try: Option<FailedTry>,
    pub error: String,
    /// The command that shows its log.
    pub log: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct FailedTry {
    pub task_id: String,
    #[serde(flatten)]
    pub position: Position,
    pub try_number: i32,
}

impl CallbackFailure {
    fn line(&self) -> String {
        let of_try = |FailedTry { task_id, position, try_number }: &FailedTry| {
            format!(" of {task_id}{position}, try {try_number}")
        };
        let of_try = self.of_try.as_ref().map(of_try).unwrap_or_default();
        let subject = match self.callback.as_deref() {
            // The Python package's name of an e-mail; the name of a function has no space.
            Some(name) if name.starts_with("email of ") => format!("email{of_try}"),
            Some(name) => format!("the callback {name}{of_try} failed"),
            None => format!("the callbacks{of_try} failed"),
        };
        format!("{subject}: {} ({})", self.error.lines().next().unwrap_or_default(), self.log)
    }
}

/// Tasks or a run that wait, and why.
#[derive(Debug, Clone, Deserialize)]
pub struct WaitingView {
    /// The subject of the message, such as `2 tasks`.
    pub what: String,
    pub reason: String,
    /// The command that ends the wait, if there is one.
    pub command: Option<String>,
}

impl WaitingView {
    pub(super) fn line(&self) -> String {
        let command = self.command.as_ref().map(|command| format!(": {command}")).unwrap_or_default();
        let verb = if self.what.starts_with("1 ") { "waits" } else { "wait" };
        format!("{} {verb}. {}{command}", self.what, self.reason)
    }
}

/// A task instance as the server describes it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct InstanceView {
    pub task_id: String,
    #[serde(flatten)]
    pub position: Position,
    pub state: Option<String>,
    pub try_number: i32,
    #[serde(skip_serializing)]
    pub max_tries: i32,
    pub start_date: Option<String>,
    pub end_date: Option<String>,
    /// When the next try of a task in `up_for_retry` starts.
    #[serde(default, skip_serializing)]
    pub next_try_at: Option<String>,
    #[serde(skip_serializing)]
    pub outcome: Option<String>,
}

impl RunView {
    pub async fn get(api: &Api<'_>, dag_id: &str, run_id: &str) -> Result<Self, Error> {
        api.get(&format!("{}/runs/{}", lite_dag_path(dag_id), encode(run_id))).await
    }

    /// Reads a run with the task instances that changed after `after`; with all if `after` is `None` or the run is
    /// finished.
    pub(super) async fn get_changed(
        api: &Api<'_>,
        dag_id: &str,
        run_id: &str,
        after: Option<&str>,
    ) -> Result<Self, Error> {
        if let Some(after) = after {
            let path = format!("{}/runs/{}?changed_after={}", lite_dag_path(dag_id), encode(run_id), encode(after));
            let run: Self = api.get(&path).await?;
            if !run.is_finished() {
                return Ok(run);
            }
        }
        Self::get(api, dag_id, run_id).await
    }

    pub fn is_finished(&self) -> bool {
        ["success", "failed"].contains(&self.state.as_str())
    }

    pub fn print(&self, printer: &Printer) {
        let duration = seconds_between(self.start_date.as_deref(), self.end_date.as_deref());
        printer.line(format!(
            "{}  {}  {}{}",
            self.dag_id,
            self.dag_run_id,
            printer.paint(colour(&self.state), &self.state),
            duration.map(|text| format!("  {text}")).unwrap_or_default()
        ));
        if !self.task_instances.is_empty() {
            let rows = self.task_instances.iter().map(|task_instance| task_instance.row(printer));
            printer.table(&["TASK", "STATE", "TRY", "DURATION", "MESSAGE"], rows);
        }
        self.waiting.iter().for_each(|waiting| printer.note(waiting.line()));
        self.callback_failures.iter().for_each(|failure| printer.warning(failure.line()));
    }

    /// The error of a failed run: which tasks failed, why, and where to read more.
    pub fn failure(&self) -> Error {
        let is_failed = |task_instance: &&InstanceView| task_instance.state.as_deref() == Some("failed");
        let failed: Vec<&InstanceView> = self.task_instances.iter().filter(is_failed).collect();
        let base = Error::failed(format!("run \"{}\" of DAG \"{}\" failed", self.dag_run_id, self.dag_id));
        let line = |failed: &&InstanceView| {
            format!("{}: {}", failed.name(), failed.outcome.as_deref().unwrap_or("failed").trim_end())
        };
        let lines: Vec<String> = failed.iter().take(5).map(line).collect();
        let base = if lines.is_empty() { base } else { base.cause(lines.join("\n")) };
        let (dag_id, run_id) = (shell::word(&self.dag_id), shell::word(&self.dag_run_id));
        match failed.first() {
            Some(task_instance) => {
                base.hint(format!("leoflow tasks logs {dag_id} {run_id} {}", shell::word(&task_instance.name()))).hint(
                    format!("fix it, then: leoflow runs clear {dag_id} {run_id} --only-failed --run-on-latest-version"),
                )
            }
            None => base.hint(format!("leoflow runs show {dag_id} {run_id}")),
        }
    }
}

impl InstanceView {
    /// The instance's name as printed and typed: `work`, `work[7]` or, in the iteration 2 of a loop, `work@2`.
    pub fn name(&self) -> String {
        format!("{}{}", self.task_id, self.position)
    }

    fn row(&self, printer: &Printer) -> [String; 5] {
        let name = self.name();
        let state = self.state.clone().unwrap_or_else(|| "-".to_owned());
        let tries = if self.try_number == 0 { "-".to_owned() } else { self.try_number.to_string() };
        let duration = seconds_between(self.start_date.as_deref(), self.end_date.as_deref()).unwrap_or_default();
        let message = self.outcome.as_deref().filter(|_| state != "success").and_then(|text| text.lines().next());
        let message: Vec<String> = self.next_try(printer).into_iter().chain(message.map(str::to_owned)).collect();
        [name, state, tries, duration, message.join(": ")]
    }

    /// Describes the present state in one line.
    pub(super) fn change_line(&self, printer: &Printer) -> String {
        let state = self.state.as_deref().unwrap_or("none");
        let tries = if self.max_tries > 0 {
            format!("  try {} of {}", self.try_number, self.max_tries + 1)
        } else {
            String::new()
        };
        let duration = match state {
            "success" | "failed" | "skipped" => seconds_between(self.start_date.as_deref(), self.end_date.as_deref()),
            _ => None,
        };
        let message = self.outcome.as_deref().filter(|_| ["failed", "up_for_retry"].contains(&state));
        let message = message.and_then(|text| text.lines().next()).map(|text| format!("  {text}")).unwrap_or_default();
        let next_try = self.next_try(printer).map(|text| format!("  {text}")).unwrap_or_default();
        format!(
            "{}  {state}{}{tries}{next_try}{message}",
            self.name(),
            duration.map(|text| format!("  {text}")).unwrap_or_default()
        )
    }

    /// When the next try starts, for a task that waits for it: `next try at 09:15:00 (in 5 min)`.
    fn next_try(&self, printer: &Printer) -> Option<String> {
        let next_try_at: Timestamp = self.next_try_at.as_deref()?.parse().ok()?;
        let now = Timestamp::now();
        Some(format!("next try at {} ({})", printer.clock_time(next_try_at, now), time_until(next_try_at, now)))
    }

    /// The time of the present state, to order changes: the end of a try, or the start of one that runs. At equal times
    /// an end precedes a start, which it may have caused.
    pub(super) fn changed_at(&self) -> (Timestamp, bool) {
        let is_running = self.state.as_deref() == Some("running");
        let time = if is_running { &self.start_date } else { &self.end_date };
        (time.as_deref().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MAX), is_running)
    }
}

/// The time until `time`: `in 30 s`, `in 5 min`, `in 2 h 5 min`; `now` for a time that has passed.
fn time_until(time: Timestamp, now: Timestamp) -> String {
    let seconds = (time.duration_since(now).as_millis().max(0) + 999) / 1000;
    let minutes = (seconds + 30) / 60;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("in {seconds} s"),
        _ if minutes < 60 => format!("in {minutes} min"),
        _ => format!("in {} h {} min", minutes / 60, minutes % 60),
    }
}

/// The colour of a state, as an ANSI code.
pub fn colour(state: &str) -> &'static str {
    match state {
        "success" => "32",
        "failed" | "upstream_failed" => "31",
        "running" => "34",
        _ => "33",
    }
}

/// Formats the time between two RFC 3339 times: `1.50 s`; `None` if one is missing.
fn seconds_between(start: Option<&str>, end: Option<&str>) -> Option<String> {
    let parse = |text: &str| text.parse::<Timestamp>().ok();
    let span = parse(end?)?.duration_since(parse(start?)?);
    Some(format!("{:.2} s", span.as_secs_f64()))
}

/// Resolves `latest` to the id of the newest run, and a logical date to the id of its run. A run id may look like a date,
/// such as `20260131`: the exact id takes precedence.
pub async fn resolve_run(api: &Api<'_>, run: &RunArgs) -> Result<String, Error> {
    let RunArgs { dag_id, run_id } = run;
    let Ok(date) = read_date("the run", run_id) else { return exact_run(api, run).await };
    if api.find::<Value>(&run_path(dag_id, run_id)).await?.is_some() {
        return Ok(run_id.clone());
    }
    let path = format!("{}/dagRuns?limit=1&logical_date_gte={date}&logical_date_lte={date}", dag_path(dag_id));
    let answer: Value = api.get(&path).await?;
    Ok(answer["dag_runs"][0]["dag_run_id"].as_str().unwrap_or(run_id).to_owned())
}

/// Resolves `latest` only: a deletion that is repeated must not find another run by its date.
pub async fn exact_run(api: &Api<'_>, RunArgs { dag_id, run_id }: &RunArgs) -> Result<String, Error> {
    if run_id != "latest" {
        return Ok(run_id.clone());
    }
    let answer: Value = api.get(&format!("{}/dagRuns?limit=1&order_by=-run_after", dag_path(dag_id))).await?;
    if let Some(newest) = answer["dag_runs"][0]["dag_run_id"].as_str() {
        return Ok(newest.to_owned());
    }
    let dag: Value = api.get(&dag_path(dag_id)).await?;
    Err(no_runs(dag_id, dag["is_paused"].as_bool().unwrap_or(false)))
}

/// The error for `latest` of a DAG without runs, with the command that starts one.
fn no_runs(dag_id: &str, is_paused: bool) -> Error {
    // A run of a paused DAG does not start.
    let unpause = if is_paused { " --unpause" } else { "" };
    Error::failed(format!("{dag_id} has no runs yet"))
        .hint(format!("leoflow dags trigger {}{unpause}", shell::word(dag_id)))
}

/// Finds a task instance by name. If a mapped task has no such instance, the error's hint names an existing instance.
pub fn instance<'a>(run: &'a RunView, name: &str, map_index: Option<i32>) -> Result<&'a InstanceView, Error> {
    let (task_id, position) = task_names::instance_name(name, map_index)?;
    let mut instances = run.task_instances.iter().filter(|task_instance| task_instance.task_id == task_id);
    instances.clone().find(|task_instance| task_instance.position == position).ok_or_else(|| {
        let base = match instances.find(|task_instance| task_instance.position != Position::ONLY) {
            Some(mapped) => Error::failed(format!("{task_id} has several instances: specify one of them"))
                .hint(format!("for example '{}'", mapped.name())),
            None => Error::failed(format!("this run has no task {name}")),
        };
        base.hint(format!("leoflow runs show {} {}", run.dag_id, run.dag_run_id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;
    use serde_json::json;

    #[test]
    fn a_paused_dag_without_runs_is_unpaused() {
        assert_eq!(no_runs("orders", true).hints, ["leoflow dags trigger orders --unpause"]);
        assert_eq!(no_runs("orders", false).hints, ["leoflow dags trigger orders"]);
    }

    #[test]
    fn a_retry_shows_when_the_next_try_starts() {
        let cli = <Cli as clap::Parser>::parse_from(["leoflow", "--utc", "versions"]);
        let printer = Printer::new(&cli.global, None, <Cli as clap::CommandFactory>::command);
        let retried: InstanceView = serde_json::from_value(json!({
            "task_id": "report", "map_index": -1, "state": "up_for_retry", "try_number": 1, "max_tries": 1,
            "start_date": null, "end_date": null, "next_try_at": "2020-01-31T09:15:00Z", "outcome": "ValueError: no",
        }))
        .unwrap();
        let next = "next try at 2020-01-31 09:15:00 (now)";
        assert_eq!(retried.change_line(&printer), format!("report  up_for_retry  try 1 of 2  {next}  ValueError: no"));
        assert_eq!(retried.row(&printer)[4], format!("{next}: ValueError: no"));
    }

    #[test]
    fn the_time_until_a_try_is_rounded() {
        let now: Timestamp = "2026-01-31T09:00:00Z".parse().unwrap();
        let until = |time: &str| time_until(time.parse().unwrap(), now);
        assert_eq!(until("2026-01-31T08:59:00Z"), "now");
        assert_eq!(until("2026-01-31T09:00:29.5Z"), "in 30 s");
        assert_eq!(until("2026-01-31T09:04:59.9Z"), "in 5 min");
        assert_eq!(until("2026-01-31T11:05:00Z"), "in 2 h 5 min");
    }
}
