//! Plans the next state changes of a run. Pure: a snapshot goes in, a plan comes out.
//!
//! The rules are Airflow's: <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html> (trigger
//! rules), <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dag-run.html> (the state of a run).
//! Like Airflow's scheduler, the planner works in passes: a change in one pass is visible in the next.

use super::pass_view::{PassView, Step};
pub use super::snapshot::{
    Dates, Decision, EndedTry, Instance, Outcome, Plan, Polled, Reason, Returned, Snapshot, Transition, TransitionKind,
};
use super::{retry, waits};
use crate::model::dag::Task;
use crate::model::state::{RunState, TaskState};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};

/// Plans everything that can be decided now. Planning again after the plan is applied gives an empty plan.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let mut planner = Planner::new(snapshot);
    planner.settle_ended_tries();
    planner.view.end_pass();
    if !planner.iterations.is_empty() {
        // The tasks that wait for the loop wait for its next iteration, which the next plan contains.
        return planner.finish(None);
    }
    if snapshot.times_out_at.is_some_and(|time| time <= snapshot.now) && planner.is_unfinished() {
        return planner.time_out();
    }
    // As in Airflow, no task is scheduled before the logical date.
    if snapshot.not_before.is_some_and(|date| date > snapshot.now) {
        return planner.finish(None);
    }
    planner.propagate();
    let run = planner.run_state();
    planner.finish(run)
}

struct Planner<'a> {
    snapshot: &'a Snapshot<'a>,
    view: PassView<'a>,
    // `due_dates` and `changes` have an entry for each instance, including added ones.
    due_dates: Vec<Option<Timestamp>>,
    changes: Vec<Option<Transition>>,
    expanded: Vec<usize>,
    added: Vec<(usize, i32)>,
    iterations: Vec<(usize, i32)>,
    restored: Vec<usize>,
    /// Tasks whose number of instances this plan has already checked or set.
    revised: HashSet<usize>,
}

impl<'a> Planner<'a> {
    fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let due_dates = snapshot.instances.iter().map(|instance| instance.due_at).collect();
        Self {
            snapshot,
            view: PassView::new(snapshot),
            due_dates,
            changes: vec![None; snapshot.instances.len()],
            expanded: Vec::new(),
            added: Vec::new(),
            iterations: Vec::new(),
            restored: Vec::new(),
            revised: HashSet::new(),
        }
    }

    fn change(
        &mut self,
        index: usize,
        to: TaskState,
        try_number: i32,
        due_at: Option<Timestamp>,
        kind: TransitionKind,
    ) {
        self.view.set(index, Some(to));
        self.due_dates[index] = due_at;
        self.changes[index] = Some(Transition { index, to, try_number, due_at, kind });
    }

    /// The current try number, including changes of this plan.
    fn try_number(&self, index: usize) -> i32 {
        let changed = self.changes[index].as_ref().map(|change| change.try_number);
        changed.unwrap_or_else(|| self.snapshot.instances.get(index).map_or(0, |instance| instance.try_number))
    }

    /// Settles the tries that the agent has ended, by their outcomes: for example to success, retry or deferral.
    fn settle_ended_tries(&mut self) {
        let mut failed = Vec::new();
        for index in 0..self.snapshot.instances.len() {
            let instance = &self.snapshot.instances[index];
            let number = instance.try_number;
            match (instance.state, &instance.ended) {
                // The DAG no longer has the task, or has it outside of the loop in which the instance is.
                (None | Some(TaskState::UpForRetry | TaskState::UpForReschedule), _)
                    if instance.task_index.is_none() =>
                {
                    self.change(index, TaskState::Removed, number, None, TransitionKind::KeepDates);
                }
                // The instance was cleared while it ran, and the DAG no longer has the task.
                (Some(TaskState::Restarting), Some(_)) if instance.task_index.is_none() => {
                    self.change(index, TaskState::Removed, number, None, TransitionKind::TryEnded);
                }
                // The instance was cleared while it ran: the outcome of the old try no longer counts.
                (Some(TaskState::Restarting), Some(_)) => {
                    self.change(
                        index,
                        TaskState::UpForRetry,
                        number,
                        Some(self.snapshot.now),
                        TransitionKind::TryEnded,
                    );
                }
                (Some(TaskState::Running), Some(ended)) => {
                    let (to, due_at) = self.state_after(instance, ended);
                    self.change(index, to, number, due_at, TransitionKind::TryEnded);
                    if to == TaskState::Failed {
                        failed.push(index);
                    }
                    if to == TaskState::Success {
                        self.skip_immediately(index, &ended.skips);
                        self.continue_loop(index, ended);
                    }
                }
                _ => {}
            }
        }
        if self.snapshot.graph.structure.fail_fast {
            if !failed.is_empty() {
                self.iterations.clear();
            }
            failed.into_iter().for_each(|index| self.fail_fast(index));
        }
    }

    /// The state and the due date that follow from an ended try.
    fn state_after(&self, instance: &Instance, ended: &EndedTry) -> (TaskState, Option<Timestamp>) {
        let now = self.snapshot.now;
        match ended.outcome {
            Outcome::Success => (TaskState::Success, None),
            Outcome::Skipped => (TaskState::Skipped, None),
            Outcome::Rescheduled { due } => {
                (TaskState::UpForReschedule, Some(retry::correct_for_clock_step(due, ended.at, now)))
            }
            Outcome::Deferred { fired } => (TaskState::Deferred, fired),
            Outcome::AwaitingInput { answered } => (TaskState::AwaitingInput, answered),
            Outcome::Failed { may_retry, due } => {
                let task = instance.task_index.map(|task_index| self.snapshot.graph.task(task_index));
                match task {
                    Some(task) if may_retry && retry::has_tries_left(instance.try_number, instance.max_tries) => {
                        let dag_id = &self.snapshot.graph.structure.dag_id;
                        let date = self.snapshot.logical_date;
                        let due = due.unwrap_or_else(|| retry::due(dag_id, task, date, instance.try_number, ended.at));
                        (TaskState::UpForRetry, Some(retry::correct_for_clock_step(due, ended.at, now)))
                    }
                    _ => (TaskState::Failed, None),
                }
            }
        }
    }

    /// Begins the next iteration of a loop, unless its gate stops the loop. The late success of a gate of an earlier
    /// iteration changes nothing.
    fn continue_loop(&mut self, index: usize, ended: &EndedTry) {
        let graph = self.snapshot.graph;
        let Some(task_index) = self.view.task_index(index) else { return };
        let (Some((group, repeats)), Some(iteration)) = (graph.loop_of_gate(task_index), graph.iteration(task_index))
        else {
            return;
        };
        let next = iteration + 1;
        if ended.loop_stops == Some(false) && next == graph.iterations(group) && next < repeats.max_iterations {
            self.iterations.push((group, next));
        }
    }

    /// Skips the tasks that a branch or a short circuit names, without evaluating their trigger rules.
    fn skip_immediately(&mut self, decider: usize, ids: &[String]) {
        let graph = self.snapshot.graph;
        let Some(decider_task) = self.view.task_index(decider) else { return };
        for task_index in graph.related(decider_task, ids) {
            // A task directly downstream of a branch is skipped later, by the recorded decision of the branch, once
            // `depends_on_past` no longer holds the task back.
            let waits_for_past = self.view.past_holds_skip(task_index)
                && graph.node(task_index).upstream.iter().any(|up| graph.task(*up).is_branch);
            if waits_for_past {
                continue;
            }
            for index in self.view.decided_by(decider_task, self.view.map_index(decider), task_index) {
                let state = self.view.state(index);
                if !matches!(state, Some(TaskState::Running | TaskState::Success | TaskState::Failed)) {
                    self.change(index, TaskState::Skipped, self.try_number(index), None, TransitionKind::NoOp);
                }
            }
        }
    }

    /// Ends all other tasks except teardowns, because the task instance with the index `failed` has failed.
    fn fail_fast(&mut self, failed: usize) {
        for index in 0..self.snapshot.instances.len() {
            let instance = &self.snapshot.instances[index];
            let is_same_task = instance.task_index == self.snapshot.instances[failed].task_index;
            let is_teardown =
                instance.task_index.is_some_and(|task_index| self.snapshot.graph.task(task_index).is_teardown);
            let state = self.view.state(index);
            if is_same_task
                || is_teardown
                || matches!(state, Some(TaskState::Success | TaskState::Failed | TaskState::Removed))
            {
                continue;
            }
            let to = if state == Some(TaskState::Running) { TaskState::Failed } else { TaskState::Skipped };
            self.change(index, to, instance.try_number, None, TransitionKind::NeverRan);
        }
    }

    /// Runs passes until nothing changes.
    fn propagate(&mut self) {
        let mut candidates: BTreeSet<usize> = (0..self.snapshot.instances.len()).collect();
        while !candidates.is_empty() {
            self.revise_all(&mut candidates);
            let mut changed = BTreeSet::new();
            for (index, step) in self.steps(&candidates) {
                let task_index = self.view.task_index(index);
                let number = self.try_number(index);
                match step {
                    // `steps` resolves `Expand`.
                    Step::Wait | Step::Expand(_) => continue,
                    Step::End(state) => self.change(index, state, number, None, TransitionKind::NeverRan),
                    Step::Run if self.snapshot.is_paused => continue,
                    Step::Run => self.run(index),
                }
                changed.extend(task_index);
            }
            self.view.end_pass();
            candidates = self.view.dependants(&changed);
        }
    }

    /// Returns the steps of the candidates, based on the states at the beginning of the pass, and those of the
    /// instances that they expand into.
    fn steps(&mut self, candidates: &BTreeSet<usize>) -> Vec<(usize, Step)> {
        let mut pending: Vec<usize> = candidates.iter().copied().collect();
        let mut steps = Vec::new();
        let mut position = 0;
        while position < pending.len() {
            let index = pending[position];
            position += 1;
            if !self.may_be_scheduled(index) {
                continue;
            }
            if self.view.state(index).is_some_and(TaskState::is_deferred) {
                // The task has started: it waits only for its trigger or its answer.
                steps.push((index, Step::Run));
                continue;
            }
            match self.view.step(index, self.due_dates[index], self.snapshot.now) {
                Step::Expand(_) if self.snapshot.is_paused => {}
                Step::Expand(None) => steps.push((index, Step::End(TaskState::UpstreamFailed))),
                Step::Expand(Some(0)) => steps.push((index, Step::End(TaskState::Skipped))),
                Step::Expand(Some(length)) => pending.extend(self.expand(index, length)),
                other => steps.push((index, other)),
            }
        }
        steps
    }

    /// True when the state of an instance allows it to start or continue.
    fn may_be_scheduled(&self, index: usize) -> bool {
        self.view.task_index(index).is_some()
            && match self.view.state(index) {
                None | Some(TaskState::UpForRetry | TaskState::UpForReschedule) => true,
                // A due date is set once the trigger has fired or a person has answered.
                Some(state) if state.is_deferred() => self.due_dates[index].is_some(),
                _ => false,
            }
    }

    /// Expands the instance with map index -1 to `length` instances and returns all of them.
    fn expand(&mut self, index: usize, length: usize) -> Vec<usize> {
        let Some(task_index) = self.view.task_index(index) else { return Vec::new() };
        self.revised.insert(task_index);
        if self.view.instance(task_index, 0).is_some() {
            return Vec::new();
        }
        self.expanded.push(index);
        self.view.set_map_index(index, 0);
        let mut all = vec![index];
        all.extend((1..length).map(|map_index| self.add(task_index, map_index)));
        all
    }

    fn add(&mut self, task_index: usize, map_index: usize) -> usize {
        let map_index = i32::try_from(map_index).unwrap_or(i32::MAX);
        self.added.push((task_index, map_index));
        self.due_dates.push(None);
        self.changes.push(None);
        self.view.add(task_index, map_index)
    }

    /// Gives each mapped task that is about to continue as many instances as its list now has. Repeats until nothing
    /// changes, because other tasks may be mapped over the return values of these tasks.
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
            candidates.extend(revised.iter().flat_map(|task_index| self.view.instances(*task_index)));
        }
    }

    /// Removes surplus instances of a task, and adds or restores missing ones. Returns true if anything changed.
    fn revise(&mut self, task_index: usize) -> bool {
        if !self.snapshot.graph.is_expandable(task_index) || self.revised.contains(&task_index) {
            return false;
        }
        // The number is unknown while a source of the mapped task runs, and after a source has failed.
        let Some(count) = self.view.count(task_index) else { return false };
        self.revised.insert(task_index);
        if self.view.is_complete(task_index, count) {
            return false;
        }
        let mut is_changed = false;
        let mut missing = 0..count;
        for index in self.view.instances(task_index).to_vec() {
            let valid_index = usize::try_from(self.view.map_index(index)).ok().filter(|valid| *valid < count);
            let is_removed = self.view.state(index) == Some(TaskState::Removed);
            if let Some(map_index) = valid_index {
                is_changed |= missing.start < map_index;
                for absent in missing.start..map_index {
                    self.add(task_index, absent);
                }
                missing.start = map_index + 1;
            }
            match valid_index {
                Some(_) if is_removed => self.restore(index),
                None if !is_removed => {
                    self.change(index, TaskState::Removed, self.try_number(index), None, TransitionKind::KeepDates)
                }
                _ => continue,
            }
            is_changed = true;
        }
        is_changed |= !missing.is_empty();
        for map_index in missing {
            self.add(task_index, map_index);
        }
        is_changed
    }

    /// Restores a removed instance by clearing its state.
    fn restore(&mut self, index: usize) {
        self.view.set(index, None);
        self.due_dates[index] = None;
        self.restored.push(index);
    }

    /// Schedules an instance. An instance that needs no process succeeds or waits immediately.
    fn run(&mut self, index: usize) {
        let Some(task_index) = self.view.task_index(index) else { return };
        let state = self.view.state(index);
        let is_rescheduled = state == Some(TaskState::UpForReschedule);
        let resumes = is_rescheduled || state.is_some_and(TaskState::is_deferred);
        let number = self.try_number(index) + i32::from(!resumes);
        let (to, due_at, kind) = match self.snapshot.graph.task(task_index) {
            _ if resumes && !is_rescheduled => (TaskState::Scheduled, None, TransitionKind::Waiting),
            task if task.is_no_op => (TaskState::Success, None, TransitionKind::NoOp),
            task => self.wait_without_process(task, index, is_rescheduled).unwrap_or((
                TaskState::Scheduled,
                None,
                TransitionKind::Waiting,
            )),
        };
        self.change(index, to, number, due_at, kind);
    }

    /// The transition of a sensor that waits without a process; `None` when the task needs a process.
    fn wait_without_process(
        &self,
        task: &Task,
        index: usize,
        is_rescheduled: bool,
    ) -> Option<(TaskState, Option<Timestamp>, TransitionKind)> {
        let (wait, dates, now) = (task.waits.as_ref()?, self.snapshot.dates.as_ref()?, self.snapshot.now);
        let ongoing_wait =
            self.snapshot.instances.get(index).filter(|instance| is_rescheduled && instance.waits_since.is_some());
        if is_rescheduled && ongoing_wait.is_none() {
            return None;
        }
        let since = ongoing_wait.and_then(|instance| instance.waits_since).unwrap_or(now);
        let success_kind = if is_rescheduled { TransitionKind::Waited } else { TransitionKind::NoOp };
        let wait_until = |due| Some((TaskState::UpForReschedule, Some(due), TransitionKind::Waits { since }));
        if let Some(interval) = wait.until.poke_interval() {
            let polled = self.view.task_index(index).and_then(|task_index| self.snapshot.polled.get(&task_index));
            return match polled {
                // The first poke is immediate.
                None => wait_until(now),
                Some(Polled::Met) => wait.is_all.then_some((TaskState::Success, None, success_kind)),
                Some(Polled::NotYet) => waits::next_poke(interval, wait.timeout, since, now).and_then(wait_until),
                Some(Polled::NeedsProcess) => None,
            };
        }
        let due = waits::due(wait, dates, ongoing_wait.and_then(|instance| instance.due_at).unwrap_or(now))?;
        if due <= now {
            return wait.is_all.then_some((TaskState::Success, None, success_kind));
        }
        if is_rescheduled || waits::is_in_time(wait, due, now) { wait_until(due) } else { None }
    }
}

impl Planner<'_> {
    fn is_unfinished(&self) -> bool {
        self.view.states().iter().any(|state| !state.is_some_and(TaskState::is_finished))
    }

    /// Ends the run because its `dagrun_timeout` has expired: unfinished instances are skipped.
    fn time_out(mut self) -> Plan {
        for index in 0..self.snapshot.instances.len() {
            if !self.view.state(index).is_some_and(TaskState::is_finished) {
                let number = self.try_number(index);
                self.change(index, TaskState::Skipped, number, None, TransitionKind::NeverRan);
            }
        }
        self.finish(Some((RunState::Failed, Reason::TimedOut)))
    }

    /// The final state of the run, or `None` if it continues. A run ends when every task has finished, failed if a leaf
    /// has failed; it also fails when no unfinished task can ever start.
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

    /// True when no unfinished task can ever start.
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
            // An instance that waits for its due date is not deadlocked, so `step` gets no due date.
            !may_wait && self.may_be_scheduled(index) && self.view.step(index, None, self.snapshot.now) == Step::Wait
        })
    }

    /// Builds the plan, with one transition per instance: intermediate states are dropped. A run that a user has marked
    /// ends in that state.
    fn finish(self, run: Option<(RunState, Reason)>) -> Plan {
        let run = run.map(|end| self.snapshot.marked.map_or(end, |state| (state, Reason::Marked)));
        let transitions = self.changes.into_iter().flatten().collect();
        Plan {
            expanded: self.expanded,
            added: self.added,
            iterations: self.iterations,
            restored: self.restored,
            transitions,
            run,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "past_tests.rs"]
mod past_tests;

#[cfg(test)]
#[path = "plan_model_tests.rs"]
mod model_tests;
