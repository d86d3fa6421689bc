//! Derives how a try ended from the files that its keeper and its task wrote. Pure.

use crate::keeper::{Cause, Outcome, ResultState, TaskResult};
use jiff::{SignedDuration, Timestamp};
use leoflow_base::sys::process::reaper::Exit;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::model::state::TryState;
use leoflow_engine::store::instance::tries::{Callbacks, Ended, Retry};

/// Derives how a try ended from `outcome.json` and `result.json`, each of which may be missing. `keeper_exit` is
/// how the keeper ended, if it ended before the task. `now` is the end of a try without an outcome.
pub fn evaluate(
    key: TryKey,
    outcome: Option<&Outcome>,
    result: Option<TaskResult>,
    keeper_exit: Option<Exit>,
    now: Timestamp,
) -> Ended {
    let end_date = outcome.map_or(now, |outcome| outcome.ended_at);
    let Some(result) = result else {
        let reason = reason_without_result(outcome, keeper_exit);
        return Ended::failed(key, Retry::Allowed, Callbacks::Owed, reason, end_date);
    };
    let state = match result.state {
        // The task's own result counts, no matter how its process ended afterwards.
        ResultState::Failed => {
            let is_signal = matches!(outcome.and_then(|outcome| outcome.exit), Some(Exit::Signal(_)));
            let callbacks = if is_signal { Callbacks::Interrupted } else { Callbacks::Called };
            return failed(key, result, callbacks, outcome.and_then(|outcome| outcome.cause), end_date);
        }
        ResultState::Deferred | ResultState::AwaitingInput if result.deferral.is_none() => {
            let reason = Some("the task reported that it is deferred, but not what it waits for".to_owned());
            let result = TaskResult { reason, retry: true, retry_delay: None, ..result };
            return failed(key, result, Callbacks::Owed, None, end_date);
        }
        ResultState::Success => TryState::Success,
        ResultState::UpForReschedule => TryState::UpForReschedule,
        ResultState::Deferred => TryState::Deferred,
        ResultState::AwaitingInput => TryState::AwaitingInput,
        ResultState::Skipped => TryState::Skipped,
    };
    Ended {
        state,
        callbacks: Callbacks::Called,
        may_retry: true,
        outcome: result.reason,
        end_date,
        xcoms: result.xcoms,
        mapped_length: result.mapped_length,
        due: result.due,
        deferral: result.deferral,
        skipped_tasks: result.skipped_tasks,
        loop_stops: result.loop_stops,
        asset_events: result.asset_events,
        rendered: result.rendered,
        rendered_map_index: result.map_index,
        key,
    }
}

/// A try that failed by its result; `cause` is why it was ended from outside, if it was. It has its rendered template
/// fields, too.
fn failed(key: TryKey, result: TaskResult, callbacks: Callbacks, cause: Option<Cause>, end_date: Timestamp) -> Ended {
    let reason = result.reason.unwrap_or_default();
    let reason = match cause {
        Some(cause) => format!("{}: {reason}", describe(cause)),
        None => reason,
    };
    let delay = result.retry_delay.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
    let due = delay.and_then(|delay| end_date.checked_add(delay).ok());
    let retry = if result.retry { Retry::Allowed } else { Retry::Never };
    let (rendered, rendered_map_index) = (result.rendered, result.map_index);
    Ended { due, rendered, rendered_map_index, ..Ended::failed(key, retry, callbacks, reason, end_date) }
}

fn reason_without_result(outcome: Option<&Outcome>, keeper_exit: Option<Exit>) -> String {
    match outcome {
        None => match keeper_exit {
            Some(exit) => format!("the keeper, which watches tasks, ended with {exit}, and the task with it"),
            None => "the task's process is gone and left no result".to_owned(),
        },
        Some(Outcome { problem: Some(problem), .. }) => problem.clone(),
        Some(Outcome { cause: Some(cause), .. }) => describe(*cause).to_owned(),
        Some(Outcome { exit: Some(Exit::Code(code)), .. }) => {
            format!("the task's process ended with exit code {code} before the task finished")
        }
        Some(Outcome { exit: Some(exit), .. }) => format!("the task's process was killed by {exit}"),
        Some(_) => "the task's process ended".to_owned(),
    }
}

fn describe(cause: Cause) -> &'static str {
    match cause {
        Cause::Timeout => "the task exceeded its execution_timeout",
        Cause::Stopped => "the task was stopped on request",
        Cause::Memory => "out of memory: the kernel killed the task",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_engine::model::keys::{InstanceKey, RunKey};

    fn try_end(
        exit: Option<Exit>,
        cause: Option<Cause>,
        result: Option<(ResultState, bool)>,
    ) -> (TryState, bool, Callbacks, String) {
        let key = TryKey {
            instance: InstanceKey::only(RunKey { dag_id: "d".into(), run_id: "r".into() }, "t"),
            try_number: 1,
        };
        let now = Timestamp::UNIX_EPOCH;
        let outcome =
            exit.map(|exit| Outcome { exit: Some(exit), ended_at: now, cause, problem: None, transient: false });
        let result = result.map(|(state, retry)| TaskResult {
            state,
            retry,
            reason: Some("why".into()),
            xcoms: Default::default(),
            mapped_length: None,
            due: None,
            deferral: None,
            retry_delay: None,
            skipped_tasks: Vec::new(),
            loop_stops: None,
            asset_events: None,
            rendered: None,
            map_index: None,
            libraries: Vec::new(),
        });
        let ended = evaluate(key, outcome.as_ref(), result, None, now);
        (ended.state, ended.may_retry, ended.callbacks, ended.outcome.unwrap())
    }

    #[test]
    fn the_result_of_a_task_outranks_its_exit() {
        let success = Some((ResultState::Success, true));
        assert_eq!(try_end(Some(Exit::Signal(11)), None, success).0, TryState::Success);
        assert_eq!(try_end(None, None, success).0, TryState::Success);
        assert_eq!(try_end(Some(Exit::Code(0)), None, Some((ResultState::Skipped, true))).0, TryState::Skipped);
        for (exit, callbacks) in [(Exit::Code(1), Callbacks::Called), (Exit::Signal(9), Callbacks::Interrupted)] {
            let failed = try_end(Some(exit), None, Some((ResultState::Failed, false)));
            assert_eq!(failed, (TryState::Failed, false, callbacks, "why".into()));
        }
        // The process took its result for a deferral.
        assert_eq!(try_end(Some(Exit::Code(0)), None, Some((ResultState::Deferred, true))).2, Callbacks::Owed);
    }

    #[test]
    fn a_process_that_ends_early_fails_and_may_retry() {
        for (exit, cause, expected) in [
            (Some(Exit::Code(0)), None, "exit code 0 before"),
            (Some(Exit::Signal(11)), None, "SIGSEGV"),
            (Some(Exit::Signal(24)), None, "ulimit -t"),
            (Some(Exit::Signal(9)), Some(Cause::Memory), "out of memory"),
            (Some(Exit::Signal(15)), Some(Cause::Timeout), "execution_timeout"),
            (Some(Exit::Signal(15)), Some(Cause::Stopped), "stopped on request"),
            (None, None, "is gone"),
        ] {
            let (state, may_retry, callbacks, text) = try_end(exit, cause, None);
            assert_eq!((state, may_retry, callbacks), (TryState::Failed, true, Callbacks::Owed));
            assert!(text.contains(expected), "{text}");
        }
    }
}
