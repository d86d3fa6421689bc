//! Runs the steps of an upgrade one at a time: reports each and records it in the journal.

use super::UpgradeError;
use super::steps::{self, State, Step};
use super::upgrade_context::UpgradeContext;
use leoflow_base::home::journal::{Entry, Journal, JournalError, Operation};
use leoflow_base::home::progress::Progress;
use std::time::Instant;
use tracing::debug;

/// An upgrade in progress.
pub struct StepRunner<'a> {
    pub context: UpgradeContext<'a>,
    pub(super) journal: Journal,
    pub state: State,
}

impl<'a> StepRunner<'a> {
    /// Starts the journal.
    pub(super) fn begin(context: UpgradeContext<'a>, state: State) -> Result<Self, JournalError> {
        let steps = Step::ALL.iter().map(|step| step.name().to_owned()).collect();
        let journal = Journal::begin_with(context.home, Operation::Upgrade, steps, state.to_json())?;
        Ok(Self { context, journal, state })
    }

    /// Continues an upgrade from its journal.
    pub fn resume(context: UpgradeContext<'a>, entry: Entry, state: State) -> Self {
        let journal = Journal::resume(context.home, entry);
        Self { context, journal, state }
    }

    /// Runs a step, reports its duration and records it as done.
    pub(super) async fn step<T>(
        &mut self,
        step: Step,
        act: impl AsyncFnOnce(&mut UpgradeContext<'a>, &mut State) -> Result<T, UpgradeError>,
    ) -> Result<T, UpgradeError> {
        let begun = Instant::now();
        self.context.reporter.report(Progress::Started(step.title().to_owned()));
        let output = act(&mut self.context, &mut self.state).await?;
        self.report_duration(step.title(), begun);
        self.journal.advance()?;
        Ok(output)
    }

    /// Records `step` as done without running it.
    pub(super) fn skip(&mut self, step: Step) -> Result<(), UpgradeError> {
        debug!("the step {} is skipped", step.name());
        Ok(self.journal.advance()?)
    }

    /// Continues with `step`, which may have been done already.
    pub(super) fn go_to(&mut self, step: Step) -> Result<(), JournalError> {
        self.journal.set_at(steps::position(self.journal.entry(), step).unwrap_or(step as usize))
    }

    /// The last step that was started.
    pub(super) fn reached(&self) -> Step {
        steps::reached(self.journal.entry())
    }

    /// Writes the state to the journal.
    pub(super) fn save_state(&mut self) -> Result<(), JournalError> {
        self.journal.set_plan(self.state.to_json())
    }

    pub(super) fn report_duration(&mut self, title: &str, begun: Instant) {
        let line = format!("{title}... {:.1} s", begun.elapsed().as_secs_f64());
        self.context.reporter.report(Progress::Finished(line.clone()));
        self.context.notes.details.push(line);
    }
}
