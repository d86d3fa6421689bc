//! A run as the command line shows it: as a table, or followed to its end.

use super::task_names;
use crate::cli::api::{Api, encode};
use crate::commands::context::Context;
use crate::error::Error;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Deserialize)]
pub struct RunView {
    pub dag_id: String,
    pub dag_run_id: String,
    pub state: String,
    pub start_date: Option<String>,
    pub end_date: Option<String>,
    pub is_paused: bool,
    #[serde(default)]
    pub as_of: Option<String>,
    pub task_instances: Vec<InstanceView>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct InstanceView {
    pub task_id: String,
    pub map_index: i32,
    pub state: Option<String>,
    pub try_number: i32,
    pub max_tries: i32,
    pub start_date: Option<String>,
    pub end_date: Option<String>,
    pub outcome: Option<String>,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

/// Between two looks at a run that changes all the time.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Between two looks at all task instances of a run; in between only those are read that have gone on.
const WHOLE: Duration = Duration::from_secs(5);

/// How long a server that is being replaced is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

impl RunView {
    pub async fn get(api: &Api<'_>, dag_id: &str, run_id: &str) -> Result<Self, Error> {
        api.get(&format!("/api/lite/dags/{}/runs/{}", encode(dag_id), encode(run_id))).await
    }

    /// With those task instances alone that have gone on after that; a run that is finished is whole.
    async fn get_changed(api: &Api<'_>, dag_id: &str, run_id: &str, after: Option<&str>) -> Result<Self, Error> {
        if let Some(after) = after {
            let path = format!("/api/lite/dags/{}/runs/{}", encode(dag_id), encode(run_id));
            let run: Self = api.get(&format!("{path}?changed_after={}", encode(after))).await?;
            if !run.is_finished() {
                return Ok(run);
            }
        }
        Self::get(api, dag_id, run_id).await
    }

    pub fn is_finished(&self) -> bool {
        ["success", "failed"].contains(&self.state.as_str())
    }

    /// The stable shape of `runs show --json`.
    pub fn json(&self) -> Value {
        let instances: Vec<Value> = self
            .task_instances
            .iter()
            .map(|one| {
                json!({
                    "task_id": one.task_id, "map_index": one.map_index, "state": one.state,
                    "try_number": one.try_number, "start_date": one.start_date, "end_date": one.end_date,
                })
            })
            .collect();
        json!({
            "dag_id": self.dag_id, "dag_run_id": self.dag_run_id, "state": self.state,
            "start_date": self.start_date, "end_date": self.end_date, "task_instances": instances,
        })
    }

    pub fn print(&self, context: &Context<'_>) {
        let printer = context.printer;
        let duration = seconds_between(self.start_date.as_deref(), self.end_date.as_deref());
        printer.line(format!(
            "{}  {}  {}{}",
            self.dag_id,
            self.dag_run_id,
            printer.paint(colour(&self.state), &self.state),
            duration.map(|text| format!("  {text}")).unwrap_or_default()
        ));
        let rows: Vec<Vec<String>> = self.task_instances.iter().map(InstanceView::row).collect();
        if !rows.is_empty() {
            printer.table(&["TASK", "STATE", "TRY", "TOOK", ""], &rows);
        }
    }

    /// The error of a run that failed: which task, why, and where to read more.
    pub fn failure(&self) -> Error {
        let failed: Vec<&InstanceView> =
            self.task_instances.iter().filter(|one| one.state.as_deref() == Some("failed")).collect();
        let base = Error::failed(format!("the run {} of {} failed", self.dag_run_id, self.dag_id));
        let lines: Vec<String> = failed
            .iter()
            .take(5)
            .map(|one| format!("{}: {}", one.name(), one.outcome.as_deref().unwrap_or("failed").trim_end()))
            .collect();
        let base = if lines.is_empty() { base } else { base.cause(lines.join("\n")) };
        match failed.first() {
            Some(one) => base
                .hint(format!("leoflow tasks logs {} {} {}", self.dag_id, self.dag_run_id, shell_word(&one.name())))
                .hint(format!("mend it, then: leoflow runs clear {} {} --only-failed", self.dag_id, self.dag_run_id)),
            None => base.hint(format!("leoflow runs show {} {}", self.dag_id, self.dag_run_id)),
        }
    }
}

impl InstanceView {
    /// As it is printed and typed.
    pub fn name(&self) -> String {
        task_names::printed(&self.task_id, self.map_index)
    }

    fn row(&self) -> Vec<String> {
        let name = self.name();
        let state = self.state.clone().unwrap_or_else(|| "-".to_owned());
        let tries = if self.try_number == 0 { "-".to_owned() } else { format!("{}", self.try_number) };
        let took = seconds_between(self.start_date.as_deref(), self.end_date.as_deref()).unwrap_or_default();
        let why = self.outcome.as_deref().filter(|_| state != "success").unwrap_or_default();
        vec![name, state, tries, took, why.lines().next().unwrap_or_default().to_owned()]
    }

    fn news(&self) -> String {
        let state = self.state.as_deref().unwrap_or("none");
        let tries = if self.max_tries > 0 {
            format!("  try {} of {}", self.try_number, self.max_tries + 1)
        } else {
            String::new()
        };
        let took = match state {
            "success" | "failed" | "skipped" => seconds_between(self.start_date.as_deref(), self.end_date.as_deref()),
            _ => None,
        };
        let why = self.outcome.as_deref().filter(|_| ["failed", "up_for_retry"].contains(&state));
        let why = why.and_then(|text| text.lines().next()).map(|text| format!("  {text}")).unwrap_or_default();
        format!("{}  {state}{}{tries}{why}", self.name(), took.map(|text| format!("  {text}")).unwrap_or_default())
    }
}

/// Brackets are the shell's too.
fn shell_word(name: &str) -> String {
    if name.contains('[') { format!("'{name}'") } else { name.to_owned() }
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

fn seconds_between(start: Option<&str>, end: Option<&str>) -> Option<String> {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let span = parse(end?)?.duration_since(parse(start?)?);
    Some(format!("{:.2} s", span.as_secs_f64()))
}

/// Follows a run to its end, telling each task's changes on stderr.
pub async fn follow(context: &Context<'_>, dag_id: &str, run_id: &str) -> Result<RunView, Error> {
    let api = Api::new(&context.home);
    let mut seen: HashMap<(String, i32), (Option<String>, i32)> = HashMap::new();
    let mut said_paused = false;
    let mut last_answer = Instant::now();
    let (mut as_of, mut whole_at) = (None, Instant::now());
    loop {
        let begun = Instant::now();
        // Counted before it is looked at: what changes in between is seen the next time.
        let looked = async {
            let Count { count } = api.get("/local/changes").await?;
            Ok::<_, Error>((count, RunView::get_changed(&api, dag_id, run_id, as_of.as_deref()).await?))
        };
        let (count, run) = match looked.await {
            Ok(found) => found,
            Err(error) if last_answer.elapsed() > PATIENCE || !error.is_for_now => return Err(error),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        last_answer = Instant::now();
        // What has changed otherwise than by going on is seen with the whole.
        if whole_at.elapsed() > WHOLE {
            (whole_at, as_of) = (Instant::now(), None);
        } else {
            as_of.clone_from(&run.as_of);
        }
        if !context.printer.json {
            tell_news(context, &run, &mut seen);
            if run.is_paused && !run.is_finished() && !said_paused {
                said_paused = true;
                context.printer.note(format!("{dag_id} is paused; it goes on after `leoflow dags unpause {dag_id}`"));
            }
        }
        if run.is_finished() {
            return Ok(run);
        }
        // A run of thousands changes faster than anybody reads: most of the machine's time is the run's.
        tokio::time::sleep((begun.elapsed() * 2).min(LONGEST_PAUSE)).await;
        // A server that leaves meanwhile is asked again above.
        let _ = api.get::<Count>(&format!("/local/changes?after={count}")).await;
    }
}

fn tell_news(context: &Context<'_>, run: &RunView, seen: &mut HashMap<(String, i32), (Option<String>, i32)>) {
    for one in &run.task_instances {
        let now = (one.state.clone(), one.try_number);
        let key = (one.task_id.clone(), one.map_index);
        let before = seen.insert(key, now.clone());
        let is_news = before.map_or(now.0.is_some(), |before| before != now);
        if is_news && !matches!(now.0.as_deref(), None | Some("scheduled" | "queued")) {
            context.printer.note(one.news());
        }
    }
}

/// The id of a run that may be called `latest`.
pub async fn resolve_run(api: &Api<'_>, dag_id: &str, run_id: &str) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Found {
        dag_run_id: String,
    }
    #[derive(Deserialize)]
    struct Answer {
        dag_runs: Vec<Found>,
    }
    if run_id != "latest" {
        return Ok(run_id.to_owned());
    }
    let path = format!("/api/v2/dags/{}/dagRuns?limit=1&order_by=-run_after", encode(dag_id));
    let answer: Answer = api.get(&path).await?;
    answer.dag_runs.into_iter().next().map(|run| run.dag_run_id).ok_or_else(|| {
        Error::failed(format!("{dag_id} has no runs yet")).hint(format!("leoflow dags trigger {dag_id}"))
    })
}

/// The instance that is meant; the error says which there are.
pub fn instance<'a>(run: &'a RunView, name: &str, map_index: Option<i32>) -> Result<&'a InstanceView, Error> {
    let (task_id, map_index) = task_names::one_of(name, map_index)?;
    let found = run.task_instances.iter().find(|one| one.task_id == task_id && one.map_index == map_index);
    found.ok_or_else(|| {
        let base = match run.task_instances.iter().find(|one| one.task_id == task_id && one.map_index >= 0) {
            Some(mapped) => Error::failed(format!("{task_id} is mapped: name one of its instances"))
                .hint(format!("such as '{}'", mapped.name())),
            None => Error::failed(format!("{name} is no task of this run")),
        };
        base.hint(format!("leoflow runs show {} {}", run.dag_id, run.dag_run_id))
    })
}
