//! Records what callbacks printed, in the server's log, and which of them failed, there and in the audit log.

use super::{answer_of, deadline_report};
use crate::environments::CodeError;
use crate::state::Core;
use crate::state::database::DatastoreError;
use leoflow_base::auth::masking::{HIDDEN, Masker};
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::dag::callbacks::Subject;
use leoflow_engine::store::event_log::{self, CallbackFailure};
use leoflow_engine::store::run::deadlines::CallbackState;
use leoflow_engine::store::secret::secrets;
use leoflow_python::ChildOutput;
use serde::Deserialize;
use tracing::{info, warn};

#[derive(Deserialize)]
struct Answer {
    problems: Vec<Problem>,
}

/// A callback that failed.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Problem {
    /// The function, or the hook of a listener; `None` if their process failed.
    callback: Option<String>,
    /// The error without its traceback.
    error: String,
    /// With the traceback.
    report: String,
}

/// Records how the callbacks of a run, of a try or of a deadline ended.
pub async fn record(core: &Core, (key, subject): (&TryKey, &Subject), output: Result<ChildOutput, CodeError>) {
    let of_output = |read: fn(&ChildOutput) -> &str| {
        output.as_ref().map_or_else(|_| String::new(), |output| read(output).to_owned())
    };
    let (printed, text) = (of_output(|output| &output.printed), of_output(ChildOutput::text));
    let problems = problems(output);
    let run = &key.instance.run;
    let name = match subject {
        Subject::Run => format!("the callback of {} for {}", run.dag_id, run.run_id),
        Subject::Try => format!("the callbacks of {key}"),
        Subject::Deadline(_) => format!("the callback of a deadline of {} for {}", run.dag_id, run.run_id),
    };
    if printed.is_empty() && problems.is_empty() && !matches!(subject, Subject::Deadline(_)) {
        return;
    }
    let masker = async { Ok::<_, DatastoreError>(secrets::stored(&*core.database.get().await?, &core.cipher).await?) };
    let mut masker = masker.await.ok();
    let mut mask = |text: &str| masked(masker.as_mut(), text);
    // The report of a process that ended without an answer contains what it printed.
    let is_reported = problems.iter().any(|problem| problem.report.ends_with(&printed));
    if let Subject::Deadline(id) = subject {
        let text = if is_reported { "" } else { &text };
        let reports = problems.iter().map(|problem| problem.report.as_str());
        let log = [text].into_iter().chain(reports).collect::<Vec<_>>().join("\n");
        let state = if problems.is_empty() { CallbackState::Success } else { CallbackState::Failed };
        deadline_report::record(core, (id, &name), state, &mask(log.trim())).await;
    }
    if !printed.is_empty() && !is_reported {
        info!("{name} ended.{}", mask(&printed));
    }
    for Problem { callback, error, report } in problems {
        warn!("{name}: {}", mask(&report));
        let (callback, error) = (callback.as_deref(), mask(&error));
        let failure = CallbackFailure { callback, error: &error, log: "leoflow lite logs server" };
        let event = failure.event(key, subject);
        let added =
            async { Ok::<_, DatastoreError>(event_log::add(&*core.database.get().await?, &event).await?) }.await;
        if let Err(error) = added {
            warn!("{name}: failed to write the failure to the audit log: {error}");
        }
    }
}

/// Returns the callbacks that failed. A process that ended without an answer counts as one.
fn problems(output: Result<ChildOutput, CodeError>) -> Vec<Problem> {
    match output.and_then(answer_of) {
        Ok(Answer { problems }) => problems,
        Err(error) => {
            let report = error.to_string();
            // What the process printed follows after the first line.
            let error = report.lines().next().unwrap_or_default().to_owned();
            vec![Problem { callback: None, error, report }]
        }
    }
}

/// Masks secrets in a text; the whole text if the stored secrets could not be read.
fn masked(masker: Option<&mut Masker>, text: &str) -> String {
    let Some(masker) = masker else { return HIDDEN.to_owned() };
    let hidden = masker.mask(text.as_bytes());
    hidden.map_or_else(|| text.to_owned(), |hidden| String::from_utf8_lossy(&hidden).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::sys::process::reaper::Exit;
    use leoflow_python::NoResult;

    fn output(result: &str, printed: &str) -> Result<ChildOutput, CodeError> {
        Ok(ChildOutput { result: result.into(), exit: Exit::Code(3), printed: printed.to_owned() })
    }

    #[test]
    fn a_process_without_an_answer_is_a_failed_callback() {
        assert_eq!(problems(output(r#"{"problems": []}"#, "\n\nIt printed:\nhello")), []);
        let died = problems(output("", "\n\nIt printed:\nhello"));
        assert_eq!(died.len(), 1);
        assert!(died[0].error.starts_with("the process ended before it answered") && !died[0].error.contains("hello"));
        assert!(died[0].report.ends_with("It printed:\nhello"), "{died:?}");
        let late = problems(Err(NoResult::TimedOut("It took too long\n\nIt printed:\nhello".to_owned()).into()));
        assert_eq!((&late[0].callback, late[0].error.as_str()), (&None, "It took too long"));
    }

    #[test]
    fn without_the_stored_secrets_all_text_is_masked() {
        let mut masker = Masker::default();
        masker.add("s3cret-word");
        assert_eq!(masked(Some(&mut masker), "the s3cret-word"), "the ***");
        assert_eq!(masked(Some(&mut masker), "hello"), "hello");
        assert_eq!(masked(None, "hello"), HIDDEN);
    }
}
