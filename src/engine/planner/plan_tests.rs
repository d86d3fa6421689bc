use super::*;
use crate::model::dag::Structure;
use crate::model::keys::Position;
use crate::model::keys::{InstanceKey, RunKey};
use crate::model::state::RunState;
use crate::planner::competition::{Competition, OtherRuns};
use crate::planner::graph::Graph;
use crate::planner::pool_limits::{PoolSlots, Usage, Waiting};
use jiff::SignedDuration;
use serde_json::json;
use std::collections::HashMap;

/// A graph of tasks such as `"b<a"`, where b is downstream of a. A task named `empty…` is an EmptyOperator; `retry…`
/// has two retries; `wait…` is a sensor that waits ten seconds, with a timeout of five seconds when it is named
/// `wait_briefly…`; `wait_then_run…` runs code after the wait. `poke…` is a file sensor.
fn graph(tasks: &[&str], max_active_tasks: u32) -> Graph {
    let tasks: Vec<_> = tasks
        .iter()
        .map(|text| {
            let (id, up) = text.split_once('<').unwrap_or((text, ""));
            let up: Vec<&str> = up.split(',').filter(|id| !id.is_empty()).collect();
            let operator = if id.starts_with("empty") { "EmptyOperator" } else { "PythonOperator" };
            let retries = if id.starts_with("retry") { 2 } else { 0 };
            let is_no_op = id.starts_with("empty");
            let wait = json!({"until": {"kind": "delta", "seconds": 10.0}, "is_all": !id.starts_with("wait_then_run"),
                              "timeout": if id.starts_with("wait_briefly") { 5.0 } else { 60.0 }});
            let mut task = json!({"task_id": id, "operator": operator, "upstream": up, "retries": retries,
                                  "retry_delay": 10.0, "is_nothing": is_no_op});
            if id.starts_with("wait") {
                task["waits"] = wait;
            }
            if id.starts_with("poke") {
                let file = json!({"kind": "file", "path": "/expected", "poke_interval": 4.0});
                task["waits"] = json!({"until": file, "is_all": !id.starts_with("poke_then_run"), "timeout": 10.0});
            }
            task
        })
        .collect();
    let structure: Structure =
        serde_json::from_value(json!({"dag_id": "d", "max_active_tasks": max_active_tasks, "tasks": tasks})).unwrap();
    Graph::new(structure)
}

/// Plays a run: plans and applies until the plan is empty.
struct Play {
    graph: Graph,
    instances: Vec<Instance>,
    now: Timestamp,
    /// Result of all pokes that are due.
    polled: Option<Polled>,
    run: Option<RunState>,
}

impl Play {
    fn new(tasks: &[&str], max_active_tasks: u32) -> Self {
        let graph = graph(tasks, max_active_tasks);
        let instances = (0..graph.len())
            .map(|task_index| Instance {
                task_id: String::new(),
                task_index: Some(task_index),
                position: Position::ONLY,
                state: None,
                try_number: 0,
                max_tries: graph.task(task_index).retries as i32,
                due_at: None,
                waits_since: None,
                ended: None,
            })
            .collect();
        Self { graph, instances, now: Timestamp::UNIX_EPOCH, polled: None, run: None }
    }

    fn snapshot(&self, is_paused: bool) -> Snapshot<'_> {
        Snapshot {
            is_paused,
            polled: self.polled(),
            dates: Some(Dates { interval_end: None, run_after: Timestamp::UNIX_EPOCH }),
            ..Snapshot::new(&self.graph, self.instances.clone(), self.now)
        }
    }

    /// Like the scheduler, returns results only for sensors whose poke is due.
    fn polled(&self) -> HashMap<usize, Polled> {
        let is_due =
            |instance: &&Instance| instance.waits_since.is_some() && instance.due_at.is_some_and(|due| due <= self.now);
        let due = self.instances.iter().filter(is_due).filter_map(|instance| instance.task_index);
        due.filter_map(|task_index| Some((task_index, self.polled?))).collect()
    }

    fn plan(&self) -> Plan {
        plan(&self.snapshot(false))
    }

    /// Plans and applies, and checks that the next plan is empty.
    fn settle(&mut self) -> &mut Self {
        let mut first = self.plan();
        self.admit(&mut first);
        self.apply(&first);
        let second = self.plan();
        assert_eq!(second.transitions, [], "planning again gives an empty plan");
        assert_eq!(second.run.map(|(state, _)| state), self.run);
        self
    }

    fn admit(&self, plan: &mut Plan) {
        let run = RunKey { dag_id: "d".into(), run_id: "r".into() };
        let mut usage = Usage::default();
        usage.pools.insert("default_pool".into(), PoolSlots { all: 128, used: 0, include_deferred: false });
        let snapshot = self.snapshot(false);
        let competition = Competition::of_run(&run, &snapshot, plan, usage);
        competition.queue(&competition.choose(&OtherRuns::default()), &snapshot, plan);
    }

    fn apply(&mut self, plan: &Plan) {
        plan.apply(&self.graph, &mut self.instances);
        self.run = plan.run.map(|(state, _)| state);
    }

    /// Ends the queued instance of a task.
    fn end(&mut self, task_id: &str, outcome: Outcome) -> &mut Self {
        let task_index = self.graph.task_index(task_id).unwrap();
        let instance = &mut self.instances[task_index];
        assert_eq!(instance.state, Some(TaskState::Queued), "{task_id} is queued");
        instance.state = Some(TaskState::Running);
        instance.ended = Some(EndedTry::new(outcome, self.now));
        self.settle()
    }

    fn states(&self) -> HashMap<&str, &'static str> {
        let text = |instance: &Instance| instance.state.map_or("none", TaskState::as_str);
        let ids = self.graph.structure.tasks.iter().map(|task| task.task_id.as_str());
        ids.zip(self.instances.iter().map(text)).collect()
    }
}

const FAILED: Outcome = Outcome::Failed { may_retry: true, due: None };

#[test]
fn a_chain_runs_in_order_and_succeeds() {
    let mut play = Play::new(&["a", "b<a", "c<b"], 16);
    play.settle();
    assert_eq!(play.states(), HashMap::from([("a", "queued"), ("b", "none"), ("c", "none")]));
    play.end("a", Outcome::Success).end("b", Outcome::Success);
    assert_eq!(play.run, None);
    play.end("c", Outcome::Success);
    assert_eq!(play.run, Some(RunState::Success));
    assert!(play.instances.iter().all(|instance| instance.try_number == 1));
}

#[test]
fn a_failure_propagates_and_other_branches_continue() {
    let mut play = Play::new(&["a", "b", "c<a,b", "d<c", "e<b"], 16);
    play.settle().end("a", FAILED);
    assert_eq!(
        play.states(),
        HashMap::from([
            ("a", "failed"),
            ("b", "queued"),
            ("c", "upstream_failed"),
            ("d", "upstream_failed"),
            ("e", "none")
        ])
    );
    assert_eq!(play.instances[2].try_number, 0, "a task that never ran has no try");
    play.end("b", Outcome::Success).end("e", Outcome::Success);
    assert_eq!(play.run, Some(RunState::Failed));
}

#[test]
fn a_skip_propagates_and_the_run_succeeds() {
    let mut play = Play::new(&["a", "b<a", "c<b"], 16);
    play.settle().end("a", Outcome::Skipped);
    assert_eq!(play.states(), HashMap::from([("a", "skipped"), ("b", "skipped"), ("c", "skipped")]));
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn an_upstream_failure_outweighs_a_skip() {
    let mut play = Play::new(&["a", "b", "c<a,b"], 16);
    play.settle().end("b", FAILED);
    assert_eq!(play.states()["c"], "upstream_failed");
    let mut play = Play::new(&["a", "b", "c<a,b"], 16);
    play.settle().end("a", Outcome::Skipped);
    assert_eq!(play.states()["c"], "skipped");
}

#[test]
fn retries_wait_for_their_delay_and_run_out() {
    let mut play = Play::new(&["retry"], 16);
    play.settle();
    for number in 1..=2 {
        play.end("retry", FAILED);
        assert_eq!((play.states()["retry"], play.instances[0].try_number), ("up_for_retry", number));
        play.now += SignedDuration::from_secs(9);
        play.settle();
        assert_eq!(play.states()["retry"], "up_for_retry");
        play.now += SignedDuration::from_secs(1);
        play.settle();
        assert_eq!((play.states()["retry"], play.instances[0].try_number), ("queued", number + 1));
    }
    play.end("retry", FAILED);
    assert_eq!((play.run, play.instances[0].try_number), (Some(RunState::Failed), 3));
}

#[test]
fn a_retry_keeps_its_delay_when_the_clock_is_set_back() {
    let mut play = Play::new(&["retry"], 16);
    play.settle();
    let ended_at = play.now + SignedDuration::from_hours(3);
    play.instances[0].state = Some(TaskState::Running);
    play.instances[0].ended = Some(EndedTry::new(FAILED, ended_at));
    play.settle();
    assert_eq!(play.instances[0].due_at, Some(play.now + SignedDuration::from_secs(10)));
}

#[test]
fn a_task_can_fail_without_retries() {
    let mut play = Play::new(&["retry"], 16);
    play.settle().end("retry", Outcome::Failed { may_retry: false, due: None });
    assert_eq!((play.states()["retry"], play.instances[0].try_number), ("failed", 1));
}

#[test]
fn empty_operators_succeed_without_the_agent() {
    let mut play = Play::new(&["empty1", "a<empty1", "empty2<a", "empty3<empty2"], 16);
    play.settle();
    assert_eq!((play.states()["empty1"], play.instances[0].try_number), ("success", 1));
    play.end("a", Outcome::Success);
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn a_sensor_waits_for_its_time_without_the_agent() {
    let mut play = Play::new(&["a", "wait<a", "b<wait"], 16);
    play.settle().end("a", Outcome::Success);
    let sensor = &play.instances[1];
    assert_eq!(
        (play.states()["wait"], sensor.waits_since.is_some(), sensor.try_number),
        ("up_for_reschedule", true, 1)
    );
    assert_eq!(sensor.due_at, Some(play.now + SignedDuration::from_secs(10)));
    play.now += SignedDuration::from_secs(10);
    play.settle();
    assert_eq!((play.states()["wait"], play.instances[1].try_number, play.states()["b"]), ("success", 1, "queued"));
    // The time has already passed when the sensor starts.
    let mut play = Play::new(&["a", "wait<a"], 16);
    play.now += SignedDuration::from_secs(10);
    play.settle().end("a", Outcome::Success);
    assert_eq!((play.states()["wait"], play.run), ("success", Some(RunState::Success)));
}

#[test]
fn a_sensor_pokes_until_success_or_timeout() {
    let mut play = Play::new(&["poke", "poke_then_run", "b<poke"], 16);
    let status = |play: &Play| (play.states()["poke"], play.instances[0].due_at.map(|due| due.as_second()));
    let step = |play: &mut Play, seconds: i64, polled: Polled| {
        play.now = Timestamp::from_second(seconds).unwrap();
        play.polled = Some(polled);
        play.settle();
    };
    // The first poke is immediate.
    let begin = play.plan();
    play.apply(&begin);
    assert_eq!(status(&play), ("up_for_reschedule", Some(0)));
    step(&mut play, 0, Polled::NotYet);
    assert_eq!(status(&play), ("up_for_reschedule", Some(4)));
    // Before the poke is due, its result does not count.
    step(&mut play, 3, Polled::Met);
    assert_eq!(status(&play), ("up_for_reschedule", Some(4)));
    step(&mut play, 4, Polled::Met);
    assert_eq!(
        [play.states()["poke"], play.states()["poke_then_run"], play.states()["b"]],
        ["success", "queued", "queued"]
    );
    assert_eq!(play.instances[0].try_number, 1);
    // The last poke is at the timeout; then the sensor's own code gives up.
    let mut play = Play::new(&["poke"], 16);
    let begin = play.plan();
    play.apply(&begin);
    for (now, due) in [(0, 4), (4, 8), (8, 10)] {
        step(&mut play, now, Polled::NotYet);
        assert_eq!(status(&play), ("up_for_reschedule", Some(due)));
    }
    step(&mut play, 10, Polled::NotYet);
    assert_eq!(play.states()["poke"], "queued");
    // A condition that needs the sensor's own code starts it immediately.
    let mut play = Play::new(&["poke"], 16);
    let begin = play.plan();
    play.apply(&begin);
    step(&mut play, 0, Polled::NeedsProcess);
    assert_eq!(play.states()["poke"], "queued");
}

#[test]
fn a_sensor_starts_when_only_its_own_code_can_decide() {
    let mut play = Play::new(&["wait_briefly", "wait_then_run"], 16);
    play.settle();
    assert_eq!((play.states()["wait_briefly"], play.states()["wait_then_run"]), ("queued", "up_for_reschedule"));
    // The sensor poked in its own process, so the next poke starts the process again, whatever the condition.
    play.end("wait_briefly", Outcome::Rescheduled { due: play.now + SignedDuration::from_secs(8) });
    assert_eq!((play.states()["wait_briefly"], play.instances[0].waits_since.is_some()), ("up_for_reschedule", false));
    play.now += SignedDuration::from_secs(8);
    play.settle();
    assert_eq!(play.states()["wait_briefly"], "queued");
    play.now += SignedDuration::from_secs(2);
    play.settle();
    assert_eq!((play.states()["wait_then_run"], play.instances[1].try_number), ("queued", 1));
}

#[test]
fn a_deferred_task_resumes_in_the_same_try() {
    let mut play = Play::new(&["a", "b"], 1);
    play.settle();
    play.end("a", Outcome::Deferred { fired: None });
    // Other tasks use its slot meanwhile.
    assert_eq!((play.states()["a"], play.states()["b"]), ("deferred", "queued"));
    play.now += SignedDuration::from_hours(1);
    play.settle();
    assert_eq!(play.states()["a"], "deferred");
    let now = play.now;
    play.instances[0].due_at = Some(now);
    play.settle();
    assert_eq!((play.states()["a"], play.instances[0].try_number), ("scheduled", 1));
    play.end("b", Outcome::Success);
    assert_eq!(play.states()["a"], "queued");
    // The trigger may fire before the deferral is settled.
    play.end("a", Outcome::Deferred { fired: Some(now) });
    assert_eq!((play.states()["a"], play.instances[0].try_number), ("queued", 1));
    // The task itself may set the time of its retry.
    let due = play.now + SignedDuration::from_secs(7);
    play.instances[0].max_tries = 1;
    play.end("a", Outcome::Failed { may_retry: true, due: Some(due) });
    assert_eq!((play.states()["a"], play.instances[0].due_at), ("up_for_retry", Some(due)));
}

#[test]
fn max_active_tasks_limits_queued_tasks_and_keeps_try_numbers() {
    let mut play = Play::new(&["a", "b", "c", "d"], 2);
    play.settle();
    let count = |play: &Play, state: &str| play.states().values().filter(|current| **current == state).count();
    assert_eq!((count(&play, "queued"), count(&play, "scheduled")), (2, 2));
    play.end("a", Outcome::Success);
    assert_eq!((count(&play, "queued"), count(&play, "scheduled")), (2, 1));
    play.end("b", Outcome::Success).end("c", Outcome::Success).end("d", Outcome::Success);
    assert!(play.instances.iter().all(|instance| instance.try_number == 1));
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn a_paused_dag_starts_nothing_and_settles_ended_tries() {
    let mut play = Play::new(&["a", "b<a"], 16);
    play.settle();
    play.instances[0].state = Some(TaskState::Running);
    play.instances[0].ended = Some(EndedTry::new(Outcome::Success, play.now));
    let paused = plan(&play.snapshot(true));
    play.apply(&paused);
    assert_eq!(play.states(), HashMap::from([("a", "success"), ("b", "none")]));
}

/// A waiting instance of another run of the DAG, in the same pool.
fn waiting_in_another_run(play: &Play, weight: i32) -> Waiting {
    let run = RunKey { dag_id: "d".into(), run_id: "another".into() };
    let instance = InstanceKey::only(run, &play.graph.task(0).task_id);
    Waiting { weight, ..Waiting::new(instance, &play.graph, 0, None) }
}

/// The instances queued for a pool with this many slots: the run's own by task id, the others by index.
fn admitted(play: &Play, is_paused: bool, slots: i64, others: &[Waiting]) -> (Vec<&'static str>, Vec<usize>) {
    let snapshot = play.snapshot(is_paused);
    let mut plan = plan(&snapshot);
    let mut usage = Usage::default();
    usage.pools.insert("default_pool".into(), PoolSlots { all: slots, used: 0, include_deferred: false });
    let run = RunKey { dag_id: "d".into(), run_id: "r".into() };
    let competition = Competition::of_run(&run, &snapshot, &plan, usage);
    let chosen = competition.choose(&OtherRuns { waiting: others.to_vec(), cut_off: Vec::new() });
    competition.queue(&chosen, &snapshot, &mut plan);
    let chosen = chosen.others;
    let queued = plan.transitions.iter().filter(|transition| transition.to == TaskState::Queued);
    (queued.map(|transition| ["a", "b"][transition.index]).collect(), chosen)
}

#[test]
fn runs_compete_for_the_slots_of_a_pool() {
    let play = Play::new(&["a", "b"], 16);
    let heavy = [waiting_in_another_run(&play, 1), waiting_in_another_run(&play, 9)];
    assert_eq!(admitted(&play, false, 1, &heavy), (vec![], vec![1]));
    assert_eq!(admitted(&play, false, 2, &heavy[1..]), (vec!["a"], vec![0]));
    assert_eq!(admitted(&play, false, 9, &heavy), (vec!["a", "b"], vec![1, 0]));
}

#[test]
fn a_paused_dag_lets_other_runs_have_the_slots() {
    let mut play = Play::new(&["a", "b"], 16);
    play.instances[0].state = Some(TaskState::Running);
    play.instances[1].state = Some(TaskState::Scheduled);
    // The others have lower weights, so the run's own instance comes first unless the DAG is paused.
    let others = [waiting_in_another_run(&play, 0), waiting_in_another_run(&play, 0)];
    assert_eq!(admitted(&play, true, 2, &others), (vec![], vec![0]), "a running task keeps its slot");
    assert_eq!(admitted(&play, false, 3, &others).0, ["b"]);
}

#[test]
fn a_task_cleared_while_running_runs_again() {
    let mut play = Play::new(&["a"], 16);
    play.settle();
    play.instances[0].state = Some(TaskState::Restarting);
    play.instances[0].ended = Some(EndedTry::new(Outcome::Success, play.now));
    play.settle();
    assert_eq!((play.states()["a"], play.instances[0].try_number), ("queued", 2));
}

#[test]
fn a_removed_task_does_not_keep_the_run_open() {
    let mut play = Play::new(&["a"], 16);
    play.instances.push(Instance {
        task_id: String::new(),
        task_index: None,
        position: Position::ONLY,
        state: Some(TaskState::Removed),
        try_number: 1,
        max_tries: 0,
        due_at: None,
        waits_since: None,
        ended: None,
    });
    play.settle().end("a", Outcome::Success);
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn a_removed_task_cleared_while_running_is_marked_removed() {
    let mut play = Play::new(&["a"], 16);
    play.instances.push(Instance {
        task_id: String::new(),
        task_index: None,
        position: Position::ONLY,
        state: Some(TaskState::Restarting),
        try_number: 1,
        max_tries: 0,
        due_at: None,
        waits_since: None,
        ended: Some(EndedTry::new(FAILED, play.now)),
    });
    play.settle().end("a", Outcome::Success);
    assert_eq!((play.run, play.instances[1].state), (Some(RunState::Success), Some(TaskState::Removed)));
}

#[test]
fn a_run_without_tasks_succeeds() {
    let mut play = Play::new(&[], 16);
    play.settle();
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn a_run_waits_for_its_logical_date() {
    let second = SignedDuration::from_secs(1);
    let play = Play::new(&["a"], 16);
    let at = |not_before, times_out_at| plan(&Snapshot { not_before, times_out_at, ..play.snapshot(false) });
    let starts = |plan: &Plan| plan.transitions.len();
    let early = at(Some(play.now + second), None);
    assert_eq!((starts(&early), early.run), (0, None), "no task is scheduled, and the run does not end");
    assert_eq!(starts(&at(Some(play.now), None)), 1);
    assert_eq!(starts(&at(None, None)), 1);
    let expired = at(Some(play.now + second), Some(play.now));
    assert_eq!(expired.run, Some((RunState::Failed, Reason::TimedOut)), "`dagrun_timeout` still applies");
}

#[test]
fn a_run_that_a_user_has_marked_ends_in_that_state() {
    let mut play = Play::new(&["a", "b"], 16);
    play.settle().end("a", Outcome::Success);
    for marked in [RunState::Failed, RunState::Success] {
        let plan_marked = |play: &Play| plan(&Snapshot { marked: Some(marked), ..play.snapshot(false) }).run;
        assert_eq!(plan_marked(&play), None, "b still runs");
        let mut ended = Play::new(&["a", "b"], 16);
        ended.settle().end("a", Outcome::Success).end("b", FAILED);
        assert_eq!(plan_marked(&ended), Some((marked, Reason::Marked)));
    }
}

#[test]
fn tasks_that_a_timeout_of_the_run_ends_get_an_end_date() {
    let mut play = Play::new(&["a", "b<a"], 16);
    play.settle();
    let plan = plan(&Snapshot { times_out_at: Some(play.now), ..play.snapshot(false) });
    let ends: Vec<_> = plan.transitions.iter().map(|transition| (transition.to, transition.kind)).collect();
    assert_eq!(ends, [(TaskState::Skipped, TransitionKind::NeverRan); 2]);
}

#[test]
fn a_timeout_or_deadlock_names_the_unfinished_instances() {
    let mut play = Play::new(&["a", "b<a", "c<b"], 16);
    play.settle().end("a", Outcome::Success);
    let expired = Snapshot { times_out_at: Some(play.now), ..play.snapshot(false) };
    assert_eq!(plan(&expired).unfinished_at_end(&expired), Some(vec![1, 2]));
    let ended = |reason| Plan { run: Some((RunState::Failed, reason)), ..Plan::default() };
    assert_eq!(ended(Reason::Deadlocked).unfinished_at_end(&expired), Some(vec![1]), "c has no finished upstream");
    assert_eq!(ended(Reason::TaskFailure).unfinished_at_end(&expired), None);
}
