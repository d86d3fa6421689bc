//! What happens next in a run, given how far it is. Pure: a snapshot goes in, changes come out.
//!
//! The rules are Airflow's: <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html>
//! (trigger rules), <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dag-run.html>
//! (the state of a run). Like its scheduler, the planner goes in passes: what changes in one is seen in
//! the next.

use super::pass_view::{PassView, Step};
pub use super::snapshot::{
    Dates, Decision, EndedTry, Instance, Kind, Outcome, Plan, Polled, Reason, Returned, Snapshot, Transition,
};
use super::{retry, waits};
use crate::engine::dag::Task;
use crate::engine::state::{RunState, TaskState};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};

/// Everything that can be said now. Applying it and asking again gives an empty plan.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let mut planner = Planner::new(snapshot);
    planner.settle_ended_tries();
    planner.view.end_pass();
    if snapshot.deadline.is_some_and(|deadline| deadline <= snapshot.now) && planner.is_unfinished() {
        return planner.time_out();
    }
    planner.follow_arrows();
    let run = planner.run_state();
    planner.finish(run)
}

struct Planner<'a> {
    snapshot: &'a Snapshot<'a>,
    view: PassView<'a>,
    dues: Vec<Option<Timestamp>>,
    changes: Vec<Option<Transition>>,
    expanded: Vec<usize>,
    added: Vec<(usize, i32)>,
    restored: Vec<usize>,
    /// Indices of tasks whose number of instances was compared with what it is to be.
    revised: HashSet<usize>,
}

impl<'a> Planner<'a> {
    fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let dues = snapshot.instances.iter().map(|instance| instance.due_at).collect();
        Self {
            snapshot,
            view: PassView::new(snapshot),
            dues,
            changes: vec![None; snapshot.instances.len()],
            expanded: Vec::new(),
            added: Vec::new(),
            restored: Vec::new(),
            revised: HashSet::new(),
        }
    }

    fn change(&mut self, index: usize, to: TaskState, try_number: i32, due_at: Option<Timestamp>, kind: Kind) {
        self.view.set(index, Some(to));
        self.dues[index] = due_at;
        self.changes[index] = Some(Transition { index, to, try_number, due_at, kind });
    }

    /// The number as it is by now.
    fn try_number(&self, index: usize) -> i32 {
        let changed = self.changes[index].as_ref().map(|change| change.try_number);
        changed.unwrap_or_else(|| self.snapshot.instances.get(index).map_or(0, |instance| instance.try_number))
    }

    /// The agent has said how a try ended; what that means for the task is decided here.
    fn settle_ended_tries(&mut self) {
        let mut failed = Vec::new();
        for index in 0..self.snapshot.instances.len() {
            let instance = &self.snapshot.instances[index];
            let number = instance.try_number;
            match (instance.state, &instance.ended) {
                // Cleared while it ran, and the DAG has no such task any more.
                (Some(TaskState::Restarting), Some(_)) if instance.task_index.is_none() => {
                    self.change(index, TaskState::Removed, number, None, Kind::TryEnded);
                }
                // Cleared while it ran: the try that ended is not the answer any more.
                (Some(TaskState::Restarting), Some(_)) => {
                    self.change(index, TaskState::UpForRetry, number, Some(self.snapshot.now), Kind::TryEnded);
                }
                (Some(TaskState::Running), Some(ended)) => {
                    let (to, due_at) = self.after(instance, ended);
                    self.change(index, to, number, due_at, Kind::TryEnded);
                    if to == TaskState::Failed {
                        failed.push(index);
                    }
                    if to == TaskState::Success {
                        self.skip_at_once(&ended.skips);
                    }
                }
                _ => {}
            }
        }
        if self.snapshot.graph.structure.fail_fast {
            failed.into_iter().for_each(|index| self.fail_fast(index));
        }
    }

    fn after(&self, instance: &Instance, ended: &EndedTry) -> (TaskState, Option<Timestamp>) {
        let now = self.snapshot.now;
        match ended.outcome {
            Outcome::Success => (TaskState::Success, None),
            Outcome::Skipped => (TaskState::Skipped, None),
            Outcome::Rescheduled { due } => (TaskState::UpForReschedule, Some(retry::set_right(due, ended.at, now))),
            Outcome::Deferred { fired } => (TaskState::Deferred, fired),
            Outcome::AwaitingInput { answered } => (TaskState::AwaitingInput, answered),
            Outcome::Failed { may_retry, due } => {
                let task = instance.task_index.map(|task_index| self.snapshot.graph.task(task_index));
                match task {
                    Some(task) if may_retry && retry::has_tries_left(instance.try_number, instance.max_tries) => {
                        let dag_id = &self.snapshot.graph.structure.dag_id;
                        let date = self.snapshot.logical_date;
                        let due = due.unwrap_or_else(|| retry::due(dag_id, task, date, instance.try_number, ended.at));
                        (TaskState::UpForRetry, Some(retry::set_right(due, ended.at, now)))
                    }
                    _ => (TaskState::Failed, None),
                }
            }
        }
    }

    /// What a branch or a short circuit skips without asking their trigger rules.
    fn skip_at_once(&mut self, ids: &[String]) {
        for task_index in ids.iter().filter_map(|id| self.snapshot.graph.task_index(id)) {
            let Some(index) = self.view.row(task_index, -1) else { continue };
            let runs =
                matches!(self.view.state(index), Some(TaskState::Running | TaskState::Success | TaskState::Failed));
            if !runs {
                self.change(index, TaskState::Skipped, self.try_number(index), None, Kind::Nothing);
            }
        }
    }

    /// The first failure ends everything but teardowns.
    fn fail_fast(&mut self, failed: usize) {
        for index in 0..self.snapshot.instances.len() {
            let instance = &self.snapshot.instances[index];
            let same = instance.task_index == self.snapshot.instances[failed].task_index;
            let is_teardown =
                instance.task_index.is_some_and(|task_index| self.snapshot.graph.task(task_index).is_teardown);
            let state = self.view.state(index);
            if same || is_teardown || matches!(state, Some(TaskState::Success | TaskState::Failed | TaskState::Removed))
            {
                continue;
            }
            let to = if state == Some(TaskState::Running) { TaskState::Failed } else { TaskState::Skipped };
            self.change(index, to, instance.try_number, None, Kind::NeverRan);
        }
    }

    /// Pass after pass, until nothing changes.
    fn follow_arrows(&mut self) {
        let mut candidates: BTreeSet<usize> = (0..self.snapshot.instances.len()).collect();
        while !candidates.is_empty() {
            self.revise_all(&mut candidates);
            let mut changed = BTreeSet::new();
            for (index, step) in self.steps(&candidates) {
                let task_index = self.view.task_index(index);
                let number = self.try_number(index);
                match step {
                    // `Expand` is only made while the steps are worked out.
                    Step::Wait | Step::Expand(_) => continue,
                    Step::End(state) => self.change(index, state, number, None, Kind::NeverRan),
                    Step::Run if self.snapshot.is_paused => continue,
                    Step::Run => self.run(index),
                }
                changed.extend(task_index);
            }
            self.view.end_pass();
            candidates = self.view.dependants(&changed);
        }
    }

    /// What each is to do, all seen from the beginning of the pass; instances that come in are asked too.
    fn steps(&mut self, candidates: &BTreeSet<usize>) -> Vec<(usize, Step)> {
        let mut waiting: Vec<usize> = candidates.iter().copied().collect();
        let mut steps = Vec::new();
        let mut at = 0;
        while at < waiting.len() {
            let index = waiting[at];
            at += 1;
            if !self.may_be_scheduled(index) {
                continue;
            }
            if self.view.state(index).is_some_and(TaskState::is_deferred) {
                // It has begun: what it waits for is its trigger or its answer alone.
                steps.push((index, Step::Run));
                continue;
            }
            match self.view.step(index, self.dues[index], self.snapshot.now) {
                Step::Expand(_) if self.snapshot.is_paused => {}
                Step::Expand(None) => steps.push((index, Step::End(TaskState::UpstreamFailed))),
                Step::Expand(Some(0)) => steps.push((index, Step::End(TaskState::Skipped))),
                Step::Expand(Some(length)) => waiting.extend(self.expand(index, length)),
                other => steps.push((index, other)),
            }
        }
        steps
    }

    fn may_be_scheduled(&self, index: usize) -> bool {
        self.view.task_index(index).is_some()
            && match self.view.state(index) {
                None | Some(TaskState::UpForRetry | TaskState::UpForReschedule) => true,
                // Once its trigger has fired, or somebody has answered.
                Some(state) if state.is_deferred() => self.dues[index].is_some(),
                _ => false,
            }
    }

    /// One without an index becomes the first of many. Returns all of them.
    fn expand(&mut self, index: usize, length: usize) -> Vec<usize> {
        let Some(task_index) = self.view.task_index(index) else { return Vec::new() };
        self.revised.insert(task_index);
        if self.view.row(task_index, 0).is_some() {
            return Vec::new();
        }
        self.expanded.push(index);
        self.view.set_map_index(index, 0);
        let mut all = vec![index];
        all.extend((1..length).map(|at| self.add(task_index, at)));
        all
    }

    fn add(&mut self, task_index: usize, map_index: usize) -> usize {
        let map_index = i32::try_from(map_index).unwrap_or(i32::MAX);
        self.added.push((task_index, map_index));
        self.dues.push(None);
        self.changes.push(None);
        self.view.add(task_index, map_index)
    }

    /// Before a mapped task goes on, it gets as many instances as it is mapped over by now. Others may be mapped over
    /// what it returns.
    fn revise_all(&mut self, candidates: &mut BTreeSet<usize>) {
        loop {
            let is_due = |index: &usize| self.may_be_scheduled(*index) && self.view.map_index(*index) >= 0;
            let due: BTreeSet<usize> =
                candidates.iter().copied().filter(is_due).filter_map(|index| self.view.task_index(index)).collect();
            let revised: BTreeSet<usize> = due.into_iter().filter(|task_index| self.revise(*task_index)).collect();
            if revised.is_empty() {
                return;
            }
            self.view.end_pass();
            candidates.extend(self.view.dependants(&revised));
            candidates.extend(revised.iter().flat_map(|task_index| self.view.rows(*task_index)));
        }
    }

    /// Removes the instances that are too many, and adds or restores those that are missing. Returns whether there were
    /// any.
    fn revise(&mut self, task_index: usize) -> bool {
        if !self.snapshot.graph.is_expandable(task_index) || self.revised.contains(&task_index) {
            return false;
        }
        // Not known as long as what it is mapped over runs, or when that has failed.
        let Some(count) = self.view.count(task_index) else { return false };
        self.revised.insert(task_index);
        if self.view.is_complete(task_index, count) {
            return false;
        }
        let mut is_changed = false;
        let mut missing = 0..count;
        for row in self.view.rows(task_index).to_vec() {
            let at = usize::try_from(self.view.map_index(row)).ok().filter(|at| *at < count);
            let is_removed = self.view.state(row) == Some(TaskState::Removed);
            if let Some(at) = at {
                is_changed |= missing.start < at;
                for at in missing.start..at {
                    self.add(task_index, at);
                }
                missing.start = at + 1;
            }
            match at {
                Some(_) if is_removed => self.restore(row),
                None if !is_removed => self.change(row, TaskState::Removed, self.try_number(row), None, Kind::Cut),
                _ => continue,
            }
            is_changed = true;
        }
        is_changed |= !missing.is_empty();
        for at in missing {
            self.add(task_index, at);
        }
        is_changed
    }

    /// A removed instance has no state again.
    fn restore(&mut self, index: usize) {
        self.view.set(index, None);
        self.dues[index] = None;
        self.restored.push(index);
    }

    /// It may run: what has nothing to do has done it.
    fn run(&mut self, index: usize) {
        let Some(task_index) = self.view.task_index(index) else { return };
        let state = self.view.state(index);
        let again = state == Some(TaskState::UpForReschedule);
        let goes_on = again || state.is_some_and(TaskState::is_deferred);
        let number = self.try_number(index) + i32::from(!goes_on);
        let (to, due_at, kind) = match self.snapshot.graph.task(task_index) {
            _ if goes_on && !again => (TaskState::Scheduled, None, Kind::Waiting),
            task if task.is_nothing() => (TaskState::Success, None, Kind::Nothing),
            task => self.wait(task, index, again).unwrap_or((TaskState::Scheduled, None, Kind::Waiting)),
        };
        self.change(index, to, number, due_at, kind);
    }

    /// What a sensor does that needs no process to wait; `None` when there is something that does.
    fn wait(&self, task: &Task, index: usize, again: bool) -> Option<(TaskState, Option<Timestamp>, Kind)> {
        let (wait, dates, now) = (task.waits.as_ref()?, self.snapshot.dates.as_ref()?, self.snapshot.now);
        let began = self.snapshot.instances.get(index).filter(|instance| again && instance.waits_since.is_some());
        if again && began.is_none() {
            return None;
        }
        let since = began.and_then(|instance| instance.waits_since).unwrap_or(now);
        let ended = if again { Kind::Waited } else { Kind::Nothing };
        let until = |due| Some((TaskState::UpForReschedule, Some(due), Kind::Waits { since }));
        if let Some(interval) = wait.until.poke_interval() {
            let polled = self.view.task_index(index).and_then(|task_index| self.snapshot.polled.get(&task_index));
            return match polled {
                // Its first look is at once.
                None => until(now),
                Some(Polled::There) => wait.is_all.then_some((TaskState::Success, None, ended)),
                Some(Polled::NotYet) => waits::next_look(interval, wait.timeout, since, now).and_then(until),
                Some(Polled::NeedsProcess) => None,
            };
        }
        let due = waits::due(wait, dates, began.and_then(|instance| instance.due_at).unwrap_or(now))?;
        if due <= now {
            return wait.is_all.then_some((TaskState::Success, None, ended));
        }
        if again || waits::is_in_time(wait, due, now) { until(due) } else { None }
    }

    fn is_unfinished(&self) -> bool {
        self.view.states().iter().any(|state| !state.is_some_and(TaskState::is_finished))
    }

    fn time_out(mut self) -> Plan {
        for index in 0..self.snapshot.instances.len() {
            if !self.view.state(index).is_some_and(TaskState::is_finished) {
                let number = self.try_number(index);
                self.change(index, TaskState::Skipped, number, None, Kind::Cut);
            }
        }
        self.finish(Some((RunState::Failed, Reason::TimedOut)))
    }

    /// Over when every task is, or when none can ever begin; failed when one that nothing waits for has failed.
    fn run_state(&self) -> Option<(RunState, Reason)> {
        let graph = self.snapshot.graph;
        if self.is_unfinished() {
            return self.is_deadlocked().then_some((RunState::Failed, Reason::Deadlocked));
        }
        let failed = (0..self.view.states().len()).any(|index| {
            self.view.task_index(index).is_some_and(|task_index| graph.node(task_index).is_leaf)
                && matches!(self.view.state(index), Some(TaskState::Failed | TaskState::UpstreamFailed))
        });
        Some(if failed { (RunState::Failed, Reason::TaskFailure) } else { (RunState::Success, Reason::Success) })
    }

    fn is_deadlocked(&self) -> bool {
        if self.snapshot.is_paused {
            return false;
        }
        (0..self.view.states().len()).all(|index| {
            let state = self.view.state(index);
            if state.is_some_and(TaskState::is_finished) {
                return true;
            }
            let Some(task_index) = self.view.task_index(index) else { return false };
            let task = self.snapshot.graph.task(task_index);
            let may_wait = task.depends_on_past
                || task.max_active_tis_per_dag.is_some()
                || task.max_active_tis_per_dagrun.is_some();
            // Whatever time it waits for, it counts as over.
            !may_wait && self.may_be_scheduled(index) && self.view.step(index, None, self.snapshot.now) == Step::Wait
        })
    }

    /// One transition for each instance: what it was on the way is nobody's business.
    fn finish(self, run: Option<(RunState, Reason)>) -> Plan {
        let transitions = self.changes.into_iter().flatten().collect();
        Plan { expanded: self.expanded, added: self.added, restored: self.restored, transitions, run }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "plan_model_tests.rs"]
mod model_tests;
