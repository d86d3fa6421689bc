use super::*;
use crate::engine::dag::Structure;
use crate::engine::keys::RunKey;
use crate::engine::planner::concurrency::{self, PoolSlots, Usage, Waiting};
use crate::engine::planner::graph::Graph;
use jiff::SignedDuration;
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// `"b<a"`: b waits for a. A task called `empty…` is an EmptyOperator; one called `retry…` has two retries. One called
/// `wait…` is a sensor that waits for ten seconds, and for five at most when it is called `wait_briefly…`; one called
/// `wait_and_tell…` has more to do then.
fn graph(tasks: &[&str], max_active_tasks: u32) -> Graph {
    let tasks: Vec<_> = tasks
        .iter()
        .map(|text| {
            let (id, up) = text.split_once('<').unwrap_or((text, ""));
            let up: Vec<&str> = up.split(',').filter(|one| !one.is_empty()).collect();
            let operator = if id.starts_with("empty") { "EmptyOperator" } else { "PythonOperator" };
            let retries = if id.starts_with("retry") { 2 } else { 0 };
            let nothing = id.starts_with("empty");
            let wait = json!({"until": {"kind": "delta", "seconds": 10.0}, "is_all": !id.starts_with("wait_and_tell"),
                              "timeout": if id.starts_with("wait_briefly") { 5.0 } else { 60.0 }});
            let mut task = json!({"task_id": id, "operator": operator, "upstream": up, "retries": retries,
                                  "retry_delay": 10.0, "is_nothing": nothing});
            if id.starts_with("wait") {
                task["waits"] = wait;
            }
            if id.starts_with("look") {
                let file = json!({"kind": "file", "path": "/expected", "poke_interval": 4.0});
                task["waits"] = json!({"until": file, "is_all": !id.starts_with("look_and_tell"), "timeout": 10.0});
            }
            task
        })
        .collect();
    let structure: Structure =
        serde_json::from_value(json!({"dag_id": "d", "max_active_tasks": max_active_tasks, "tasks": tasks})).unwrap();
    Graph::new(structure)
}

/// A run that is played through: the planner is asked until it has no more to say.
struct Play {
    graph: Graph,
    instances: Vec<Instance>,
    now: Timestamp,
    /// What sensors see whose look is due.
    polled: Option<Polled>,
    run: Option<RunState>,
}

impl Play {
    fn new(tasks: &[&str], max_active_tasks: u32) -> Self {
        let graph = graph(tasks, max_active_tasks);
        let instances = (0..graph.len())
            .map(|task_index| Instance {
                task_index: Some(task_index),
                map_index: -1,
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
            graph: &self.graph,
            is_paused,
            instances: self.instances.clone(),
            now: self.now,
            logical_date: None,
            polled: self.polled(),
            dates: Some(Dates { interval_end: None, run_after: Timestamp::UNIX_EPOCH }),
            deadline: None,
            lengths: HashMap::new(),
            decisions: HashMap::new(),
            held_by_past: HashSet::new(),
        }
    }

    /// As the scheduler looks: for those whose look is due.
    fn polled(&self) -> HashMap<usize, Polled> {
        let is_due = |one: &&Instance| one.waits_since.is_some() && one.due_at.is_some_and(|due| due <= self.now);
        let due = self.instances.iter().filter(is_due).filter_map(|one| one.task_index);
        due.filter_map(|task_index| Some((task_index, self.polled?))).collect()
    }

    fn plan(&self) -> Plan {
        plan(&self.snapshot(false))
    }

    fn settle(&mut self) -> &mut Self {
        let mut first = self.plan();
        self.admit(&mut first);
        self.apply(&first);
        let second = self.plan();
        assert_eq!(second.transitions, [], "a plan leaves nothing to say");
        assert_eq!(second.run.map(|(state, _)| state), self.run);
        self
    }

    fn admit(&self, plan: &mut Plan) {
        let run = RunKey { dag_id: "d".into(), run_id: "r".into() };
        let mut usage = Usage::default();
        usage.pools.insert("default_pool".into(), PoolSlots { all: 128, used: 0, include_deferred: false });
        let others = concurrency::admit(&run, &self.snapshot(false), plan, usage, &[]);
        assert_eq!(others, [0_usize; 0]);
    }

    fn apply(&mut self, plan: &Plan) {
        plan.apply(&self.graph, &mut self.instances);
        self.run = plan.run.map(|(state, _)| state);
    }

    fn end(&mut self, task_id: &str, outcome: Outcome) -> &mut Self {
        let task_index = self.graph.task_index(task_id).unwrap();
        let instance = &mut self.instances[task_index];
        assert_eq!(instance.state, Some(TaskState::Queued), "{task_id} has been queued");
        instance.state = Some(TaskState::Running);
        instance.ended = Some(EndedTry { outcome, at: self.now, skips: Vec::new() });
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
fn a_chain_runs_one_after_the_other_and_succeeds() {
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
fn a_failure_goes_down_the_arrows_at_once_and_the_other_branch_goes_on() {
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
    assert_eq!(play.instances[2].try_number, 0, "one that never ran has no try");
    play.end("b", Outcome::Success).end("e", Outcome::Success);
    assert_eq!(play.run, Some(RunState::Failed));
}

#[test]
fn a_skip_skips_what_follows_and_the_run_succeeds() {
    let mut play = Play::new(&["a", "b<a", "c<b"], 16);
    play.settle().end("a", Outcome::Skipped);
    assert_eq!(play.states(), HashMap::from([("a", "skipped"), ("b", "skipped"), ("c", "skipped")]));
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn a_failure_weighs_more_than_a_skip() {
    let mut play = Play::new(&["a", "b", "c<a,b"], 16);
    play.settle().end("b", FAILED);
    assert_eq!(play.states()["c"], "upstream_failed");
    let mut play = Play::new(&["a", "b", "c<a,b"], 16);
    play.settle().end("a", Outcome::Skipped);
    assert_eq!(play.states()["c"], "skipped");
}

#[test]
fn retries_wait_their_delay_and_end() {
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
fn a_retry_waits_its_delay_once_the_clock_is_set_back() {
    let mut play = Play::new(&["retry"], 16);
    play.settle();
    let at = play.now + SignedDuration::from_hours(3);
    play.instances[0].state = Some(TaskState::Running);
    play.instances[0].ended = Some(EndedTry { outcome: FAILED, at, skips: Vec::new() });
    play.settle();
    assert_eq!(play.instances[0].due_at, Some(play.now + SignedDuration::from_secs(10)));
}

#[test]
fn a_task_that_asks_for_it_fails_without_its_retries() {
    let mut play = Play::new(&["retry"], 16);
    play.settle().end("retry", Outcome::Failed { may_retry: false, due: None });
    assert_eq!((play.states()["retry"], play.instances[0].try_number), ("failed", 1));
}

#[test]
fn empty_operators_end_without_the_agent() {
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
    // Its time is over when it begins.
    let mut play = Play::new(&["a", "wait<a"], 16);
    play.now += SignedDuration::from_secs(10);
    play.settle().end("a", Outcome::Success);
    assert_eq!((play.states()["wait"], play.run), ("success", Some(RunState::Success)));
}

#[test]
fn a_sensor_looks_until_it_sees_or_gives_up() {
    let mut play = Play::new(&["look", "look_and_tell", "b<look"], 16);
    let at = |play: &Play| (play.states()["look"], play.instances[0].due_at.map(|due| due.as_second()));
    let step = |play: &mut Play, seconds: i64, polled: Polled| {
        play.now = Timestamp::from_second(seconds).unwrap();
        play.polled = Some(polled);
        play.settle();
    };
    // The first look is at once.
    let begin = play.plan();
    play.apply(&begin);
    assert_eq!(at(&play), ("up_for_reschedule", Some(0)));
    step(&mut play, 0, Polled::NotYet);
    assert_eq!(at(&play), ("up_for_reschedule", Some(4)));
    // Before it is due nobody asks what there is.
    step(&mut play, 3, Polled::There);
    assert_eq!(at(&play), ("up_for_reschedule", Some(4)));
    step(&mut play, 4, Polled::There);
    assert_eq!(
        [play.states()["look"], play.states()["look_and_tell"], play.states()["b"]],
        ["success", "queued", "queued"]
    );
    assert_eq!(play.instances[0].try_number, 1);
    // The last look is when the time is over; then its own code gives up.
    let mut play = Play::new(&["look"], 16);
    let begin = play.plan();
    play.apply(&begin);
    for (now, due) in [(0, 4), (4, 8), (8, 10)] {
        step(&mut play, now, Polled::NotYet);
        assert_eq!(at(&play), ("up_for_reschedule", Some(due)));
    }
    step(&mut play, 10, Polled::NotYet);
    assert_eq!(play.states()["look"], "queued");
    // What only its own code can say is its own code's at once.
    let mut play = Play::new(&["look"], 16);
    let begin = play.plan();
    play.apply(&begin);
    step(&mut play, 0, Polled::NeedsProcess);
    assert_eq!(play.states()["look"], "queued");
}

#[test]
fn what_only_a_sensors_own_code_can_do_is_done_by_it() {
    let mut play = Play::new(&["wait_briefly", "wait_and_tell"], 16);
    play.settle();
    assert_eq!((play.states()["wait_briefly"], play.states()["wait_and_tell"]), ("queued", "up_for_reschedule"));
    // It has looked itself, and does so again, whatever the scheduler knows.
    play.end("wait_briefly", Outcome::Rescheduled { due: play.now + SignedDuration::from_secs(8) });
    assert_eq!((play.states()["wait_briefly"], play.instances[0].waits_since.is_some()), ("up_for_reschedule", false));
    play.now += SignedDuration::from_secs(8);
    play.settle();
    assert_eq!(play.states()["wait_briefly"], "queued");
    play.now += SignedDuration::from_secs(2);
    play.settle();
    assert_eq!((play.states()["wait_and_tell"], play.instances[1].try_number), ("queued", 1));
}

#[test]
fn a_deferred_task_goes_on_in_the_same_try_once_its_trigger_has_fired() {
    let mut play = Play::new(&["a", "b"], 1);
    play.settle();
    play.end("a", Outcome::Deferred { fired: None });
    // Others have its place meanwhile.
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
    // It may have fired before it was known to wait.
    play.end("a", Outcome::Deferred { fired: Some(now) });
    assert_eq!((play.states()["a"], play.instances[0].try_number), ("queued", 1));
    // The task says itself when it is tried again.
    let due = play.now + SignedDuration::from_secs(7);
    play.instances[0].max_tries = 1;
    play.end("a", Outcome::Failed { may_retry: true, due: Some(due) });
    assert_eq!((play.states()["a"], play.instances[0].due_at), ("up_for_retry", Some(due)));
}

#[test]
fn no_more_at_once_than_max_active_tasks_and_a_number_is_counted_once() {
    let mut play = Play::new(&["a", "b", "c", "d"], 2);
    play.settle();
    let count = |play: &Play, state: &str| play.states().values().filter(|found| **found == state).count();
    assert_eq!((count(&play, "queued"), count(&play, "scheduled")), (2, 2));
    play.end("a", Outcome::Success);
    assert_eq!((count(&play, "queued"), count(&play, "scheduled")), (2, 1));
    play.end("b", Outcome::Success).end("c", Outcome::Success).end("d", Outcome::Success);
    assert!(play.instances.iter().all(|instance| instance.try_number == 1));
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn nothing_new_begins_in_a_paused_dag_and_what_ended_is_told() {
    let mut play = Play::new(&["a", "b<a"], 16);
    play.settle();
    play.instances[0].state = Some(TaskState::Running);
    play.instances[0].ended = Some(EndedTry { outcome: Outcome::Success, at: play.now, skips: Vec::new() });
    let paused = plan(&play.snapshot(true));
    play.apply(&paused);
    assert_eq!(play.states(), HashMap::from([("a", "success"), ("b", "none")]));
}

/// Of another run of the DAG, in the same pool.
fn of_another_run(play: &Play, weight: i32) -> Waiting {
    let run = RunKey { dag_id: "d".into(), run_id: "another".into() };
    Waiting { weight, ..Waiting::new(&run, &play.graph, 0, -1, None) }
}

/// Who begins when the pool has so many slots: of the run's tasks by their names, of the others by their indices.
fn admitted(play: &Play, is_paused: bool, slots: i64, others: &[Waiting]) -> (Vec<&'static str>, Vec<usize>) {
    let snapshot = play.snapshot(is_paused);
    let mut plan = plan(&snapshot);
    let mut usage = Usage::default();
    usage.pools.insert("default_pool".into(), PoolSlots { all: slots, used: 0, include_deferred: false });
    let run = RunKey { dag_id: "d".into(), run_id: "r".into() };
    let chosen = concurrency::admit(&run, &snapshot, &mut plan, usage, others);
    let queued = plan.transitions.iter().filter(|one| one.to == TaskState::Queued);
    (queued.map(|one| ["a", "b"][one.index]).collect(), chosen)
}

#[test]
fn runs_compete_for_the_slots_of_a_pool() {
    let play = Play::new(&["a", "b"], 16);
    let heavy = [of_another_run(&play, 1), of_another_run(&play, 9)];
    assert_eq!(admitted(&play, false, 1, &heavy), (vec![], vec![1]));
    assert_eq!(admitted(&play, false, 2, &heavy[1..]), (vec!["a"], vec![0]));
    assert_eq!(admitted(&play, false, 9, &heavy), (vec!["a", "b"], vec![1, 0]));
}

#[test]
fn a_paused_dag_lets_other_runs_have_the_slots() {
    let mut play = Play::new(&["a", "b"], 16);
    play.instances[0].state = Some(TaskState::Running);
    play.instances[1].state = Some(TaskState::Scheduled);
    let others = [of_another_run(&play, 1), of_another_run(&play, 1)];
    assert_eq!(admitted(&play, true, 2, &others), (vec![], vec![0]), "what runs keeps its slot");
    assert_eq!(admitted(&play, false, 3, &others).0, ["b"]);
}

#[test]
fn one_that_was_cleared_while_it_ran_runs_again_whatever_became_of_it() {
    let mut play = Play::new(&["a"], 16);
    play.settle();
    play.instances[0].state = Some(TaskState::Restarting);
    play.instances[0].ended = Some(EndedTry { outcome: Outcome::Success, at: play.now, skips: Vec::new() });
    play.settle();
    assert_eq!((play.states()["a"], play.instances[0].try_number), ("queued", 2));
}

#[test]
fn a_task_that_the_version_lacks_does_not_hold_the_run() {
    let mut play = Play::new(&["a"], 16);
    play.instances.push(Instance {
        task_index: None,
        map_index: -1,
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
fn one_that_was_cleared_while_it_ran_and_is_no_task_any_more_does_not_hold_the_run() {
    let mut play = Play::new(&["a"], 16);
    play.instances.push(Instance {
        task_index: None,
        map_index: -1,
        state: Some(TaskState::Restarting),
        try_number: 1,
        max_tries: 0,
        due_at: None,
        waits_since: None,
        ended: Some(EndedTry { outcome: FAILED, at: play.now, skips: Vec::new() }),
    });
    play.settle().end("a", Outcome::Success);
    assert_eq!((play.run, play.instances[1].state), (Some(RunState::Success), Some(TaskState::Removed)));
}

#[test]
fn a_run_without_tasks_is_over() {
    let mut play = Play::new(&[], 16);
    play.settle();
    assert_eq!(play.run, Some(RunState::Success));
}
