//! The scheduler's planner, for a run in the foreground: the process that runs the tasks asks over a socket what
//! comes next.

use crate::engine::dag::Structure;
use crate::engine::length::Length;
use crate::engine::planner::graph::Graph;
use crate::engine::planner::plan::{self, Decision, EndedTry, Instance, Outcome, Returned, Snapshot};
use crate::engine::planner::retry;
use crate::engine::state::TaskState;
use crate::sys::blocking;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Question {
    /// What comes next?
    Next(Next),
    /// How many elements are there?
    Length { length: Value, lengths: HashMap<String, usize> },
}

#[derive(Deserialize)]
struct Next {
    instances: Vec<Asked>,
    lengths: HashMap<String, usize>,
    decisions: Vec<Decided>,
    logical_date: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Asked {
    task_id: String,
    map_index: i32,
    state: Option<String>,
    try_number: i32,
    max_tries: i32,
    ended: Option<Ended>,
}

#[derive(Deserialize)]
struct Ended {
    state: String,
    retry: bool,
    skips: Vec<String>,
}

#[derive(Deserialize)]
struct Decided {
    task_id: String,
    map_index: i32,
    followed: Option<HashSet<String>>,
    skipped: Option<HashSet<String>>,
}

/// Answers whoever connects: the process that runs the tasks, and each task that asks for itself. Ends with this
/// process.
pub fn serve(listener: &UnixListener, structure: Structure) {
    let graph = Arc::new(Graph::new(structure));
    for stream in listener.incoming().flatten() {
        let graph = graph.clone();
        // One that leaves in the middle is nobody's trouble.
        blocking::thread(move || answer_all(&graph, stream));
    }
}

fn answer_all(graph: &Graph, stream: UnixStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        writeln!(writer, "{}", reply(graph, &line?))?;
    }
    Ok(())
}

fn reply(graph: &Graph, question: &str) -> Value {
    match serde_json::from_str::<Question>(question) {
        Ok(Question::Next(question)) => answer(graph, question),
        Ok(Question::Length { length, lengths }) => match serde_json::from_value::<Length>(length) {
            Ok(length) => json!({"length": length.resolve(&|task| lengths.get(task).copied())}),
            Err(error) => json!({"error": error.to_string()}),
        },
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn answer(graph: &Graph, question: Next) -> Value {
    let now = Timestamp::now();
    let decisions = question
        .decisions
        .into_iter()
        .filter_map(|one| {
            let decision = one.followed.map(Decision::Followed).or(one.skipped.map(Decision::Skipped))?;
            Some(((graph.task_index(&one.task_id)?, one.map_index), decision))
        })
        .collect();
    let snapshot = Snapshot {
        graph,
        is_paused: false,
        now,
        logical_date: question.logical_date,
        polled: HashMap::new(),
        dates: None,
        deadline: None,
        lengths: question.lengths.into_iter().map(|(task, length)| (task, Returned::Elements(length))).collect(),
        decisions,
        held_by_past: HashSet::new(),
        instances: question.instances.into_iter().map(|one| instance(graph, one, now)).collect(),
    };
    let plan = plan::plan(&snapshot);
    let added: Vec<(&str, i32)> =
        plan.added.iter().map(|(task_index, at)| (graph.task(*task_index).task_id.as_str(), *at)).collect();
    // Those that were added come after those that were there.
    let max_tries = |index: usize| match snapshot.instances.get(index) {
        Some(instance) => instance.max_tries,
        None => graph.task(plan.added[index - snapshot.instances.len()].0).retries.cast_signed(),
    };
    let transitions: Vec<Value> = plan
        .transitions
        .iter()
        .map(|one| {
            let may_retry = retry::has_tries_left(one.try_number, max_tries(one.index));
            json!([one.index, one.to.as_str(), one.try_number, may_retry])
        })
        .collect();
    json!({
        "expanded": plan.expanded, "added": added, "transitions": transitions,
        "run": plan.run.map(|(state, _)| state.as_str()),
    })
}

/// A retry is due at once: nobody waits at a terminal.
fn instance(graph: &Graph, one: Asked, now: Timestamp) -> Instance {
    let outcome = |ended: &Ended| match ended.state.as_str() {
        "success" => Outcome::Success,
        "skipped" => Outcome::Skipped,
        // It waits where it runs.
        "up_for_reschedule" => Outcome::Rescheduled { due: Timestamp::MAX },
        _ => Outcome::Failed { may_retry: ended.retry, due: None },
    };
    let state = one.state.as_deref().and_then(TaskState::parse);
    Instance {
        task_index: graph.task_index(&one.task_id),
        map_index: one.map_index,
        state,
        try_number: one.try_number,
        max_tries: one.max_tries,
        due_at: (state == Some(TaskState::UpForReschedule)).then_some(Timestamp::MAX),
        waits_since: None,
        ended: one.ended.map(|ended| EndedTry { outcome: outcome(&ended), at: now, skips: ended.skips }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = include_str!("../../python/messages.schema.json");

    fn check(of: &str, message: &Value) {
        let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
        schema["$ref"] = json!(format!("#/$defs/{of}"));
        let problems: Vec<_> =
            jsonschema::validator_for(&schema).unwrap().iter_errors(message).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{of}: {problems:?} in {message}");
    }

    fn structure(tasks: Value) -> Structure {
        serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).unwrap()
    }

    #[test]
    fn says_what_comes_next_and_whether_a_try_may_follow() {
        let graph = Graph::new(structure(json!([{"task_id": "t", "operator": "o", "retries": 1}])));
        let asked = |state: Value, try_number: i32, ended: Value| {
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
        assert_eq!(asked(json!(null), 0, json!(null))["transitions"], json!([[0, "scheduled", 1, true]]));
        let failed = json!({"state": "failed", "retry": true, "skips": []});
        assert_eq!(asked(json!("running"), 1, failed.clone())["transitions"], json!([[0, "scheduled", 2, false]]));
        assert_eq!(asked(json!("running"), 2, failed)["run"], "failed");
    }

    #[test]
    fn says_how_many_elements_there_are() {
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
    fn what_is_no_question_is_told_so() {
        let graph = Graph::new(structure(json!([])));
        for wrong in ["", "{}", "{\"kind\": \"next\"}", "{\"kind\": \"length\", \"length\": \"many\", \"lengths\": {}}"]
        {
            let answer = reply(&graph, wrong);
            check("planner_answer", &answer);
            assert!(answer["error"].is_string(), "{wrong}: {answer}");
        }
    }
}
