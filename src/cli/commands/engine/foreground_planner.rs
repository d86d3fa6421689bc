//! The scheduler's planner for a run in the foreground: the process that runs the tasks asks over a socket for the
//! next transitions.

use jiff::Timestamp;
use leoflow_base::sys::blocking;
use leoflow_engine::model::dag::Structure;
use leoflow_engine::model::keys::Position;
use leoflow_engine::model::length::Length;
use leoflow_engine::model::state::TaskState;
use leoflow_engine::planner::graph::Graph;
use leoflow_engine::planner::plan::{self, Decision, EndedTry, Instance, Outcome, Returned, Snapshot};
use leoflow_engine::planner::retry;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Question {
    /// Asks for the next transitions.
    Next(Next),
    /// Asks for the number of elements of a mapped task.
    Length { length: Value, lengths: HashMap<String, usize> },
}

/// The current state of the run, from which the planner computes the next transitions.
#[derive(Deserialize)]
struct Next {
    instances: Vec<InstanceInput>,
    lengths: HashMap<String, usize>,
    decisions: Vec<DecisionInput>,
    logical_date: Option<Timestamp>,
}

#[derive(Deserialize)]
struct InstanceInput {
    task_id: String,
    map_index: i32,
    state: Option<String>,
    try_number: i32,
    max_tries: i32,
    ended: Option<TryResult>,
}

/// Result of a try that has ended; `skips` lists the tasks that it skips.
#[derive(Deserialize)]
struct TryResult {
    state: String,
    retry: bool,
    skips: Vec<String>,
}

/// The tasks that a branching task follows or skips.
#[derive(Deserialize)]
struct DecisionInput {
    task_id: String,
    map_index: i32,
    followed: Option<HashSet<String>>,
    skipped: Option<HashSet<String>>,
}

/// Answers questions on every connection, from the process that runs the tasks and from the tasks. Never returns; the
/// thread ends with this process.
pub fn serve(listener: &UnixListener, structure: Structure) {
    let graph = Arc::new(Graph::new(structure));
    for stream in listener.incoming().flatten() {
        let graph = graph.clone();
        // A client that disconnects early is not an error.
        blocking::thread(move || answer_all(&graph, BufReader::new(stream.try_clone()?), stream));
    }
}

/// Answers each line of a connection until it ends.
pub fn answer_all(graph: &Graph, reader: impl BufRead, mut writer: impl Write) -> std::io::Result<()> {
    for line in reader.lines() {
        writeln!(writer, "{}", reply(graph, &line?))?;
        writer.flush()?;
    }
    Ok(())
}

/// Answers one question, a line of JSON.
fn reply(graph: &Graph, question: &str) -> Value {
    match serde_json::from_str::<Question>(question) {
        Ok(Question::Next(question)) => next_transitions(graph, question),
        Ok(Question::Length { length, lengths }) => match serde_json::from_value::<Length>(length) {
            Ok(length) => json!({"length": length.resolve(&|task| lengths.get(task).copied())}),
            Err(error) => json!({"error": error.to_string()}),
        },
        Err(error) => json!({"error": error.to_string()}),
    }
}

/// Plans the next transitions as the scheduler does.
fn next_transitions(graph: &Graph, question: Next) -> Value {
    let now = Timestamp::now();
    let decisions = question
        .decisions
        .into_iter()
        .filter_map(|input| {
            let decision = input.followed.map(Decision::Followed).or(input.skipped.map(Decision::Skipped))?;
            Some(((graph.task_index(&input.task_id)?, input.map_index), decision))
        })
        .collect();
    let snapshot = Snapshot {
        logical_date: question.logical_date,
        lengths: question
            .lengths
            .into_iter()
            .filter_map(|(task, length)| Some((graph.task_index(&task)?, Returned::Elements(length))))
            .collect(),
        decisions,
        ..Snapshot::new(graph, question.instances.into_iter().map(|input| instance(graph, input, now)).collect(), now)
    };
    let plan = plan::plan(&snapshot);
    let added: Vec<(&str, i32)> = plan
        .added
        .iter()
        .map(|(task_index, map_index)| (graph.task(*task_index).task_id.as_str(), *map_index))
        .collect();
    // A transition's index counts the existing instances first, then the added ones.
    let max_tries = |index: usize| match snapshot.instances.get(index) {
        Some(instance) => instance.max_tries,
        None => graph.task(plan.added[index - snapshot.instances.len()].0).retries.cast_signed(),
    };
    let transitions: Vec<Value> = plan
        .transitions
        .iter()
        .map(|transition| {
            let may_retry = retry::has_tries_left(transition.try_number, max_tries(transition.index));
            json!([transition.index, transition.to.as_str(), transition.try_number, may_retry])
        })
        .collect();
    json!({
        "expanded": plan.expanded, "added": added, "transitions": transitions,
        "run": plan.run.map(|(state, _)| state.as_str()),
    })
}

/// Converts a task instance. Makes every retry due at once, because a user is waiting at the terminal.
fn instance(graph: &Graph, input: InstanceInput, now: Timestamp) -> Instance {
    let outcome = |ended: &TryResult| match ended.state.as_str() {
        "success" => Outcome::Success,
        "skipped" => Outcome::Skipped,
        // Never due for the planner, because the process that runs the tasks waits for the reschedule itself.
        "up_for_reschedule" => Outcome::Rescheduled { due: Timestamp::MAX },
        _ => Outcome::Failed { may_retry: ended.retry, due: None },
    };
    let state = input.state.as_deref().and_then(TaskState::parse);
    Instance {
        task_index: graph.task_index(&input.task_id),
        task_id: input.task_id,
        position: Position::mapped(input.map_index),
        state,
        try_number: input.try_number,
        max_tries: input.max_tries,
        due_at: (state == Some(TaskState::UpForReschedule)).then_some(Timestamp::MAX),
        waits_since: None,
        ended: input.ended.map(|ended| EndedTry {
            outcome: outcome(&ended),
            at: now,
            skips: ended.skips,
            loop_stops: None,
            has_asset_events: false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = include_str!("../../../python/messages.schema.json");

    fn check(definition: &str, message: &Value) {
        let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
        schema["$ref"] = json!(format!("#/$defs/{definition}"));
        let problems: Vec<_> =
            jsonschema::validator_for(&schema).unwrap().iter_errors(message).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{definition}: {problems:?} in {message}");
    }

    fn structure(tasks: Value) -> Structure {
        serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).unwrap()
    }

    #[test]
    fn returns_transitions_and_whether_a_retry_is_left() {
        let graph = Graph::new(structure(json!([{"task_id": "t", "operator": "o", "retries": 1}])));
        let ask = |state: Value, try_number: i32, ended: Value| {
            let question = json!({
                "kind": "next", "lengths": {}, "decisions": [], "logical_date": null,
                "instances": [{"task_id": "t", "map_index": -1, "state": state, "try_number": try_number, "max_tries": 1,
                               "ended": ended}],
            });
            check("planner_question", &question);
            let answer = reply(&graph, &question.to_string());
            check("planner_answer", &answer);
            answer
        };
        assert_eq!(ask(json!(null), 0, json!(null))["transitions"], json!([[0, "scheduled", 1, true]]));
        let failed = json!({"state": "failed", "retry": true, "skips": []});
        assert_eq!(ask(json!("running"), 1, failed.clone())["transitions"], json!([[0, "scheduled", 2, false]]));
        assert_eq!(ask(json!("running"), 2, failed)["run"], "failed");
    }

    #[test]
    fn returns_the_number_of_elements() {
        let graph = Graph::new(structure(json!([{"task_id": "t", "operator": "o"}])));
        let length = |lengths: Value| {
            let question = json!({"kind": "length", "length": {"product": [3, {"task": "n"}]}, "lengths": lengths});
            check("planner_question", &question);
            let answer = reply(&graph, &question.to_string());
            check("planner_answer", &answer);
            answer["length"].clone()
        };
        assert_eq!(length(json!({"n": 4})), 12);
        assert_eq!(length(json!({})), json!(null));
    }

    #[test]
    fn an_invalid_request_gets_an_error() {
        let graph = Graph::new(structure(json!([])));
        for wrong in ["", "{}", "{\"kind\": \"next\"}", "{\"kind\": \"length\", \"length\": \"many\", \"lengths\": {}}"]
        {
            let answer = reply(&graph, wrong);
            check("planner_answer", &answer);
            assert!(answer["error"].is_string(), "{wrong}: {answer}");
        }
    }
}
