//! From what a keeper and its task left behind to how the try ended. Pure.

use super::folder::{Cause, Outcome, ResultState, TaskResult};
use crate::engine::keys::TryKey;
use crate::engine::state::TryState;
use crate::engine::store::tries::Ended;
use crate::sys::reaper::Exit;
use jiff::{SignedDuration, Timestamp};

/// A try that has not begun and never will.
pub fn never_began(key: TryKey, reason: String) -> Ended {
    Ended::failed(key, true, reason, Timestamp::now())
}

/// How a try ended of which both, one or none of the two files is there.
/// `keeper_log` is what the keeper last wrote of its own errors.
pub fn ended(
    key: TryKey,
    outcome: Option<&Outcome>,
    result: Option<TaskResult>,
    keeper_log: &str,
    now: Timestamp,
) -> Ended {
    let end_date = outcome.map_or(now, |outcome| outcome.ended_at);
    let rendered = result.as_ref().map(|result| (result.rendered.clone(), result.map_index.clone()));
    let (rendered, rendered_map_index) = rendered.unwrap_or_default();
    let failed = |may_retry, text: String| Ended {
        rendered: rendered.clone(),
        rendered_map_index: rendered_map_index.clone(),
        ..Ended::failed(key.clone(), may_retry, text, end_date)
    };
    match result {
        // What the task said of itself counts, whatever became of its process after it.
        Some(TaskResult { state: ResultState::Failed, retry, reason, retry_delay, .. }) => {
            let said = reason.unwrap_or_default();
            let ended = match outcome.and_then(|outcome| outcome.cause) {
                Some(cause) => failed(retry, format!("{}: {said}", in_words(cause))),
                None => failed(retry, said),
            };
            let delay = retry_delay.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
            Ended { due: delay.and_then(|delay| end_date.checked_add(delay).ok()), ..ended }
        }
        // What it waits for is said with it.
        Some(TaskResult { state: ResultState::Deferred | ResultState::AwaitingInput, deferral: None, .. }) => {
            failed(true, "it says that it is deferred, and not until when".to_owned())
        }
        Some(result) => Ended {
            state: match result.state {
                ResultState::Success => TryState::Success,
                ResultState::UpForReschedule => TryState::UpForReschedule,
                ResultState::Deferred => TryState::Deferred,
                ResultState::AwaitingInput => TryState::AwaitingInput,
                ResultState::Skipped | ResultState::Failed => TryState::Skipped,
            },
            may_retry: true,
            outcome: result.reason,
            end_date,
            xcoms: result.xcoms,
            due: result.due,
            deferral: result.deferral,
            skipped_tasks: result.skipped_tasks,
            asset_events: result.asset_events,
            rendered: result.rendered,
            rendered_map_index: result.map_index,
            key,
        },
        None => failed(true, without_result(outcome, keeper_log)),
    }
}

fn without_result(outcome: Option<&Outcome>, keeper_log: &str) -> String {
    match outcome {
        None if keeper_log.is_empty() => "its process is gone and left no result".to_owned(),
        None => format!("its process is gone and left no result; its keeper logged: {keeper_log}"),
        Some(Outcome { problem: Some(problem), .. }) => problem.clone(),
        Some(Outcome { cause: Some(cause), .. }) => in_words(*cause).to_owned(),
        Some(Outcome { exit: Some(Exit::Code(code)), .. }) => {
            format!("its process ended with exit code {code} before the task was done")
        }
        Some(Outcome { exit: Some(exit), .. }) => format!("its process was ended by {exit}"),
        Some(_) => "its process ended".to_owned(),
    }
}

fn in_words(cause: Cause) -> &'static str {
    match cause {
        Cause::Timeout => "its execution_timeout was over",
        Cause::Stopped => "it was told to end",
        Cause::Memory => "out of memory: the kernel ended it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys::RunKey;

    fn told(exit: Option<Exit>, cause: Option<Cause>, result: Option<(ResultState, bool)>) -> (TryState, bool, String) {
        let key = TryKey {
            run: RunKey { dag_id: "d".into(), run_id: "r".into() },
            task_id: "t".into(),
            map_index: -1,
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
            due: None,
            deferral: None,
            retry_delay: None,
            skipped_tasks: Vec::new(),
            asset_events: None,
            rendered: None,
            map_index: None,
            libraries: Vec::new(),
        });
        let ended = ended(key, outcome.as_ref(), result, "", now);
        (ended.state, ended.may_retry, ended.outcome.unwrap())
    }

    #[test]
    fn what_the_task_says_counts_more_than_its_process() {
        let success = Some((ResultState::Success, true));
        assert_eq!(told(Some(Exit::Signal(11)), None, success).0, TryState::Success);
        assert_eq!(told(None, None, success).0, TryState::Success);
        assert_eq!(told(Some(Exit::Code(0)), None, Some((ResultState::Skipped, true))).0, TryState::Skipped);
        let failed = told(Some(Exit::Code(1)), None, Some((ResultState::Failed, false)));
        assert_eq!(failed, (TryState::Failed, false, "why".into()));
    }

    #[test]
    fn a_process_that_ended_early_failed_and_may_be_tried_again() {
        for (exit, cause, words) in [
            (Some(Exit::Code(0)), None, "exit code 0 before"),
            (Some(Exit::Signal(11)), None, "SIGSEGV"),
            (Some(Exit::Signal(24)), None, "ulimit -t"),
            (Some(Exit::Signal(9)), Some(Cause::Memory), "out of memory"),
            (Some(Exit::Signal(15)), Some(Cause::Timeout), "execution_timeout"),
            (Some(Exit::Signal(15)), Some(Cause::Stopped), "told to end"),
            (None, None, "gone"),
        ] {
            let (state, may_retry, text) = told(exit, cause, None);
            assert_eq!((state, may_retry), (TryState::Failed, true));
            assert!(text.contains(words), "{text}");
        }
    }
}
