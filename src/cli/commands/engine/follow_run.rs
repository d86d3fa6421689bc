//! Follows a run until it ends, and prints what changes.

use super::run_view::{InstanceView, RunView, WaitingView};
use crate::context::Context;
use crate::error::Error;
use leoflow_engine::model::keys::Position;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The server's counter of changes.
#[derive(Deserialize)]
struct Count {
    count: u64,
}

/// Maximum pause between two polls of a run that changes all the time.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A run that is followed for longer than this is polled less often.
const SHORT_RUN: Duration = Duration::from_secs(1);

/// Interval between reads of all task instances of a run; in between only changed ones are read.
const FULL_READ_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit for the server to respond again while it is being replaced.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);

/// Follows a run until it ends and prints each task's state changes to stderr.
pub async fn follow(context: &Context<'_>, dag_id: &str, run_id: &str) -> Result<RunView, Error> {
    let api = context.api();
    let mut changes = Changes::default();
    let (begun, mut last_response) = (Instant::now(), Instant::now());
    let (mut as_of, mut full_read_at) = (None, Instant::now());
    loop {
        let poll_started = Instant::now();
        // The change counter is read before the run, so that a change in between is seen by the next poll.
        let poll = async {
            let Count { count } = api.get("/local/changes").await?;
            Ok::<_, Error>((count, RunView::get_changed(&api, dag_id, run_id, as_of.as_deref()).await?))
        };
        let (count, run) = match poll.await {
            Ok(count_and_run) => count_and_run,
            Err(error) if last_response.elapsed() > SERVER_TIMEOUT || !error.is_transient => return Err(error),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        last_response = Instant::now();
        // `changed_after` leaves out new instances that are not scheduled yet; a periodic full read finds them.
        if full_read_at.elapsed() > FULL_READ_INTERVAL {
            (full_read_at, as_of) = (Instant::now(), None);
        } else {
            as_of.clone_from(&run.as_of);
        }
        context.printer.part(|_| changes.print(context, &run));
        if run.is_finished() {
            return Ok(run);
        }
        // A run of thousands of tasks changes all the time; the pause leaves the CPU to the run.
        let factor = if begun.elapsed() < SHORT_RUN { 2 } else { 10 };
        tokio::time::sleep((poll_started.elapsed() * factor).min(LONGEST_PAUSE)).await;
        // Errors are ignored here; the next poll retries.
        let _ = api.get::<Count>(&format!("/local/changes?after={count}")).await;
    }
}

/// What was printed of a run.
#[derive(Default)]
struct Changes {
    /// State and try of each instance, by task and map index.
    states: HashMap<(String, Position), (Option<String>, i32)>,
    waiting: Vec<String>,
    has_printed_pause: bool,
    has_printed: bool,
}

impl Changes {
    /// Prints what changed since the last call.
    fn print(&mut self, context: &Context<'_>, run: &RunView) {
        for task_instance in self.changed(run) {
            context.printer.note(task_instance.change_line(context.printer));
        }
        // Not at the first read, because tasks of a new run often wait only for a moment.
        let is_first = !std::mem::replace(&mut self.has_printed, true);
        for line in run.waiting.iter().filter(|_| !is_first && !run.is_paused).map(WaitingView::line) {
            if !self.waiting.contains(&line) {
                context.printer.note(&line);
                self.waiting.push(line);
            }
        }
        if run.is_paused && !run.is_finished() && !std::mem::replace(&mut self.has_printed_pause, true) {
            let dag_id = &run.dag_id;
            let text = format!("{dag_id} is paused; the run continues after `leoflow dags unpause {dag_id}`");
            context.printer.note(text);
        }
    }

    /// The task instances whose state or try changed, in the order in which they changed.
    fn changed<'a>(&mut self, run: &'a RunView) -> Vec<&'a InstanceView> {
        let mut changed = Vec::new();
        for task_instance in &run.task_instances {
            let now = (task_instance.state.clone(), task_instance.try_number);
            let key = (task_instance.task_id.clone(), task_instance.position);
            let before = self.states.insert(key, now.clone());
            let has_changed = before.map_or(now.0.is_some(), |before| before != now);
            if has_changed && !matches!(now.0.as_deref(), None | Some("scheduled" | "queued")) {
                changed.push(task_instance);
            }
        }
        changed.sort_by_key(|task_instance| task_instance.changed_at());
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_of_one_poll_are_in_the_order_of_time() {
        let instance = |task_id: &str, state: &str, start: &str, end: Option<&str>| {
            json!({"task_id": task_id, "map_index": -1, "state": state, "try_number": 1, "max_tries": 0,
                   "start_date": start, "end_date": end, "outcome": null})
        };
        let run: RunView = serde_json::from_value(json!({
            "dag_id": "d", "dag_run_id": "r", "state": "running", "start_date": null, "end_date": null,
            "is_paused": false,
            "task_instances": [
                instance("count", "running", "2026-01-31T09:00:02Z", None),
                instance("last", "running", "2026-01-31T09:00:03.5Z", None),
                instance("greet", "success", "2026-01-31T09:00:01Z", Some("2026-01-31T09:00:02Z")),
            ],
        }))
        .unwrap();
        let mut changes = Changes::default();
        let names: Vec<&str> = changes.changed(&run).iter().map(|changed| changed.task_id.as_str()).collect();
        assert_eq!(names, ["greet", "count", "last"]);
        assert!(changes.changed(&run).is_empty());
    }
}
