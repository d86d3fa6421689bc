//! The worker of an upgrade or a rollback, in a session of its own: reports its progress, then the result, to the
//! command that watches it.

use crate::context::Context;
use crate::error::Error;
use crate::error::upgrade::SEE_UPGRADE_LOG;
use crate::terminal::report::{PipeSink, Report};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::log;
use leoflow_base::sys::process::stdio;
use leoflow_lifecycle::upgrade::{Outcome, Status, UpgradeError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Runs the worker. `perform` gets a future that completes when the watching command cancels the operation with
/// SIGTERM; from here on, SIGTERM has no other effect.
pub async fn run<E: Into<Error>>(
    context: &Context<'_>,
    perform: impl AsyncFnOnce(Cancelled) -> Result<Outcome, E>,
) -> Result<u8, Error> {
    log::start("upgrade", context.log_level());
    let cancelled = match signal(SignalKind::terminate()) {
        Ok(terminated) => Cancelled(terminated),
        Err(error) => return send_result(Err(Error::failed(error))),
    };
    // The command that reads the reports may hang; a write to it must fail and not block the operation.
    stdio::set_stdout_writes(stdio::Writes::Fail);
    send_result(perform(cancelled).await.map_err(Into::into))
}

/// The signal by which the watching command cancels the operation.
pub struct Cancelled(Signal);

impl Cancelled {
    pub async fn received(mut self) {
        self.0.recv().await;
    }
}

/// Sends the result over the pipe, and waits until it is written.
fn send_result(work_result: Result<Outcome, Error>) -> Result<u8, Error> {
    stdio::set_stdout_writes(stdio::Writes::Block);
    match work_result {
        Ok(mut outcome) => {
            let error = command_error(&mut outcome);
            let code = error.as_ref().map_or(0, Error::exit_code);
            PipeSink.send(&Report::Done { result: result_json(&outcome), error });
            Ok(code)
        }
        Err(error) => {
            PipeSink.send(&Report::Failed(error.clone()));
            Err(error)
        }
    }
}

/// Reports over the pipe and to `logs/upgrade.log`.
pub struct LoggedSink;

impl Reporter for LoggedSink {
    fn report(&self, progress: Progress) {
        match &progress {
            Progress::Finished(text) | Progress::Note(text) => info!("{text}"),
            Progress::Warning(text) => warn!("{text}"),
            _ => {}
        }
        PipeSink.report(progress);
    }
}

/// The result for the watching command, with a message.
fn result_json(outcome: &Outcome) -> serde_json::Value {
    let mut value = serde_json::to_value(outcome).unwrap_or_default();
    let (new, old) = (&outcome.new_version, &outcome.previous_version);
    let notes: String = outcome.notes.iter().map(|note| format!("\n  {note}")).collect();
    match (outcome.status, &outcome.problem_text) {
        (Status::Upgraded, _) => value["message"] = format!("Upgraded from {old} to {new}").into(),
        (Status::RolledBack, None) => value["message"] = format!("Rolled back from {old} to {new}{notes}").into(),
        _ => {}
    }
    value
}

/// The error of the command, `None` if it succeeded; its last hint is the next step.
fn command_error(outcome: &mut Outcome) -> Option<Error> {
    let fault = outcome.error.take()?;
    let was_cancelled = matches!(fault, UpgradeError::Cancelled);
    let (new, old) = (&outcome.new_version, &outcome.previous_version);
    let forward = format!("to upgrade again: leoflow upgrade {old}");
    let (message, hint) = match outcome.status {
        Status::Upgraded => return None,
        Status::Failed if was_cancelled => {
            return Some(Error::signal(2, format!("cancelled: nothing was changed, {old} continues as before")));
        }
        Status::Failed => (format!("nothing was changed, {old} continues as before: the change to {new} failed"), None),
        Status::RolledBack => {
            (format!("the upgrade to {new} failed and was rolled back: {old} is installed again with all data"), None)
        }
        Status::UpgradedWithProblem => {
            (format!("upgraded to {new}, but it has problems"), Some("to roll back: leoflow rollback"))
        }
        Status::RolledBackWithProblem => (format!("rolled back to {new}, but it has problems"), Some(forward.as_str())),
    };
    let Error { kind, message: fault_message, cause, hints, .. } = fault.into();
    let cause = [Some(fault_message), cause].into_iter().flatten().collect::<Vec<_>>().join("\n");
    let mut base = Error { kind, hints, ..Error::failed(message).cause(cause) };
    let hint = hint.unwrap_or(SEE_UPGRADE_LOG);
    // The hint is listed only once, at the end.
    base.hints.retain(|other| other != hint);
    Some(base.hint(hint))
}
