//! The scheduler's planner, for a run in the foreground: the process that runs the tasks asks over a socket what
//! comes next.

use crate::engine::dag::Structure;
use crate::engine::planner::graph::Graph;
use crate::engine::planner::plan::{self, Decision, EndedTry, Instance, Outcome, Snapshot};
use crate::engine::state::TaskState;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;

#[derive(Deserialize)]
struct Question {
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

/// Answers until whoever asks has left.
pub fn serve(listener: &UnixListener, structure: Structure) -> std::io::Result<()> {
    let graph = Graph::new(structure);
    let (stream, _) = listener.accept()?;
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let answer = match serde_json::from_str::<Question>(&line?) {
            Ok(question) => answer(&graph, question),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(writer, "{answer}")?;
    }
    Ok(())
}

fn answer(graph: &Graph, question: Question) -> Value {
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
        deadline: None,
        lengths: question.lengths,
        decisions,
        held_by_past: HashSet::new(),
        instances: question.instances.into_iter().map(|one| instance(graph, one, now)).collect(),
    };
    let plan = plan::plan(&snapshot);
    let added: Vec<(&str, i32)> =
        plan.added.iter().map(|(task_index, at)| (graph.task(*task_index).task_id.as_str(), *at)).collect();
    let transitions: Vec<(usize, &str, i32)> =
        plan.transitions.iter().map(|one| (one.index, one.to.as_str(), one.try_number)).collect();
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
        _ => Outcome::Failed { may_retry: ended.retry },
    };
    let state = one.state.as_deref().and_then(TaskState::parse);
    Instance {
        task_index: graph.task_index(&one.task_id),
        map_index: one.map_index,
        state,
        try_number: one.try_number,
        max_tries: one.max_tries,
        due_at: (state == Some(TaskState::UpForReschedule)).then_some(Timestamp::MAX),
        ended: one.ended.map(|ended| EndedTry { outcome: outcome(&ended), at: now, skips: ended.skips }),
    }
}
