//! Decides whether the run ends, and how.

use super::super::pass_view::Step;
use super::super::snapshot::{Plan, Reason, TransitionKind};
use super::Planner;
use crate::model::state::{RunState, TaskState};

impl Planner<'_> {
    pub(super) fn is_unfinished(&self) -> bool {
        self.view.states().iter().any(|state| !state.is_some_and(TaskState::is_finished))
    }

    /// Ends the run because its `dagrun_timeout` has expired: unfinished instances are skipped.
    pub(super) fn time_out(mut self) -> Plan {
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
    pub(super) fn run_state(&self) -> Option<(RunState, Reason)> {
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
    pub(super) fn is_deadlocked(&self) -> bool {
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
    pub(super) fn finish(self, run: Option<(RunState, Reason)>) -> Plan {
        let run = run.map(|end| self.snapshot.marked.map_or(end, |state| (state, Reason::Marked)));
        let transitions = self.changes.into_iter().flatten().collect();
        Plan { expanded: self.expanded, added: self.added, restored: self.restored, transitions, run }
    }
}
