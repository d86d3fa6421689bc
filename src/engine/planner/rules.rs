//! Airflow's trigger rules, evaluated over the number of upstream instances in each state. Pure.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#trigger-rules>

use crate::model::dag::{Task, TriggerRule};
use crate::model::state::TaskState;

/// Number of task instances by state: of the upstream tasks, or of one task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All instances, finished or not.
    pub all: usize,
    pub success: usize,
    pub skipped: usize,
    pub failed: usize,
    pub upstream_failed: usize,
    pub removed: usize,
    /// Number of setup tasks among all instances.
    pub setups: usize,
    pub success_setups: usize,
    pub skipped_setups: usize,
}

impl Tally {
    /// Adds an instance of `task`.
    pub fn count(&mut self, state: Option<TaskState>, task: &Task) {
        let is_setup = task.is_setup;
        self.all += 1;
        self.setups += usize::from(is_setup);
        match state {
            Some(TaskState::Success) => {
                self.success += 1;
                self.success_setups += usize::from(is_setup);
            }
            Some(TaskState::Skipped) => {
                self.skipped += 1;
                self.skipped_setups += usize::from(is_setup);
            }
            Some(TaskState::Failed) => self.failed += 1,
            Some(TaskState::UpstreamFailed) => self.upstream_failed += 1,
            Some(TaskState::Removed) => self.removed += 1,
            _ => {}
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.all += other.all;
        self.success += other.success;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.upstream_failed += other.upstream_failed;
        self.removed += other.removed;
        self.setups += other.setups;
        self.success_setups += other.success_setups;
        self.skipped_setups += other.skipped_setups;
    }

    /// Number of finished instances.
    pub fn done(&self) -> usize {
        self.success + self.skipped + self.failed + self.upstream_failed + self.removed
    }

    pub fn is_done(&self) -> bool {
        self.done() >= self.all
    }

    fn any_failed(&self) -> bool {
        self.failed + self.upstream_failed > 0
    }
}

/// The decision of a trigger rule about a task instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Run,
    Wait,
    /// The instance gets this state without running.
    End(TaskState),
}

/// Evaluates a trigger rule. Airflow's rules also remove an instance whose map index exceeds the number of its
/// successful upstreams. Here the planner has already removed surplus instances, based on the list that the task itself
/// is mapped over.
pub fn judge(rule: TriggerRule, tally: &Tally) -> Verdict {
    match terminal_state(rule, tally) {
        Some(state) => Verdict::End(state),
        None if is_met(rule, tally) => Verdict::Run,
        None => Verdict::Wait,
    }
}

/// The state that ends the task without running it, if any.
fn terminal_state(rule: TriggerRule, t: &Tally) -> Option<TaskState> {
    use TaskState::{Skipped, UpstreamFailed};
    let when = |condition: bool, state: TaskState| condition.then_some(state);
    match rule {
        TriggerRule::AllSuccess => all_success_terminal_state(t),
        TriggerRule::AllFailed => when(t.success + t.skipped > 0, Skipped),
        TriggerRule::AllDone | TriggerRule::Always => None,
        TriggerRule::AllDoneMinOneSuccess => when(t.skipped > 0, Skipped).or(when(
            t.success + t.failed + t.upstream_failed + t.removed >= t.all - t.skipped && t.success == 0,
            UpstreamFailed,
        )),
        TriggerRule::AllDoneSetupSuccess if t.is_done() && t.setups > 0 => {
            when(t.skipped_setups >= t.setups, Skipped).or(when(t.success_setups == 0, UpstreamFailed))
        }
        TriggerRule::AllDoneSetupSuccess => None,
        TriggerRule::OneSuccess if t.is_done() => {
            when(t.done() == t.skipped, Skipped).or(when(t.success == 0, UpstreamFailed))
        }
        TriggerRule::OneFailed => when(t.is_done() && !t.any_failed(), Skipped),
        TriggerRule::OneDone => when(t.is_done() && t.failed + t.success == 0, Skipped),
        TriggerRule::OneSuccess => None,
        TriggerRule::NoneFailed => when(t.any_failed(), UpstreamFailed),
        TriggerRule::NoneFailedMinOneSuccess => when(t.any_failed(), UpstreamFailed)
            .or(when(t.skipped == t.all, Skipped))
            .or(when(t.is_done() && t.success == 0, UpstreamFailed)),
        TriggerRule::NoneSkipped => when(t.skipped > 0, Skipped),
        TriggerRule::AllSkipped => when(t.success + t.failed + t.upstream_failed > 0, Skipped),
    }
}

fn all_success_terminal_state(t: &Tally) -> Option<TaskState> {
    if t.any_failed() {
        return Some(TaskState::UpstreamFailed);
    }
    (t.skipped > 0).then_some(TaskState::Skipped)
}

fn is_met(rule: TriggerRule, t: &Tally) -> bool {
    match rule {
        TriggerRule::AllSuccess => t.all <= t.success + t.removed,
        TriggerRule::AllFailed => t.all <= t.failed + t.upstream_failed + t.removed,
        TriggerRule::AllDone => t.is_done(),
        TriggerRule::AllDoneMinOneSuccess => {
            t.skipped == 0 && t.success + t.failed + t.upstream_failed + t.removed >= t.all && t.success > 0
        }
        TriggerRule::AllDoneSetupSuccess => t.is_done() && (t.setups == 0 || t.success_setups > 0),
        TriggerRule::OneSuccess => t.success > 0,
        TriggerRule::OneFailed => t.any_failed(),
        TriggerRule::OneDone => t.success + t.failed > 0,
        TriggerRule::NoneFailed => t.all <= t.success + t.skipped + t.removed,
        TriggerRule::NoneFailedMinOneSuccess => t.all <= t.success + t.skipped + t.removed && t.success > 0,
        TriggerRule::NoneSkipped => t.is_done() && t.skipped == 0,
        TriggerRule::AllSkipped => t.all <= t.skipped,
        TriggerRule::Always => true,
    }
}

/// Evaluates the indirect setups of an instance, regardless of the task's own rule: all of them must have succeeded.
/// For a mapped instance, removed setup instances count as successful.
pub(crate) fn judge_setups(tally: &Tally, map_index: i32) -> Verdict {
    match all_success_terminal_state(tally) {
        Some(state) => Verdict::End(state),
        None => {
            let removed = if map_index > -1 { tally.removed } else { 0 };
            if tally.all > tally.success + removed { Verdict::Wait } else { Verdict::Run }
        }
    }
}
