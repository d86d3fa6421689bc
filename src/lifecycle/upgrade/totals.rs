//! Compares the answers of the invariants before and after a change of the schema. No other session may write
//! meanwhile.

use super::UpgradeError;
use super::steps::Direction;
use super::upgrade_context::UpgradeContext;
use crate::backup::invariants::is_of_other_release;
use leoflow_base::config::Invariant;
use leoflow_base::home::progress::Progress;
use leoflow_engine::store::totals;
use leoflow_postgres::Login;
use leoflow_postgres::invariants::{self, Answer, Answers, Limits, Unanswered, time_limit};
use std::time::Duration;

/// Time limit of all invariants together while requests wait.
const TOTAL_LIMIT: Duration = Duration::from_secs(5);

/// Evaluates the invariants in the application's database, or in `database`. Warns about an invariant without an answer,
/// which is then not compared.
pub(super) async fn read(context: &UpgradeContext<'_>, database: Option<&str>) -> Result<Vec<Answer>, UpgradeError> {
    let invariants = totals::with_own(&context.config.backup.invariants);
    let Answers { answers, unanswered } = ask(context, database, &invariants).await?;
    unanswered
        .iter()
        .filter(|invariant| !is_of_other_release(invariant))
        .for_each(|invariant| warn_not_compared(context, invariant));
    Ok(answers)
}

/// Fails if an answer differs from the one in `before`, or if a migration removed an object that one of the user's
/// invariants reads.
pub(super) async fn require_unchanged(
    context: &UpgradeContext<'_>,
    before: &[Answer],
    database: Option<&str>,
    direction: Direction,
) -> Result<(), UpgradeError> {
    let after = ask(context, database, &invariants::invariants_of(before)).await?;
    if let Some(difference) = invariants::differences(before, &after.answers).into_iter().next() {
        return Err(UpgradeError::Totals(difference));
    }
    for unanswered in after.unanswered {
        // Undoing migrations removes tables, which the plan of the rollback lists.
        let is_broken = direction == Direction::Up && unanswered.names_missing_object;
        if is_broken && !totals::is_built_in(&unanswered.invariant) {
            return Err(UpgradeError::Unanswered(unanswered));
        }
        warn_not_compared(context, &unanswered);
    }
    Ok(())
}

/// Warns if an answer differs from the one in `before`, after a rollback, which is kept in any case.
pub(super) async fn warn_if_changed(context: &UpgradeContext<'_>, before: &[Answer]) {
    if let Err(error) = require_unchanged(context, before, None, Direction::Down).await {
        context.reporter.report(Progress::Warning(format!("after the rollback, {error}")));
    }
}

async fn ask(
    context: &UpgradeContext<'_>,
    database: Option<&str>,
    invariants: &[Invariant],
) -> Result<Answers, UpgradeError> {
    let application = context.access.application();
    let login = Login { database: database.map_or(application.database, str::to_owned), ..application };
    let client = context.access.connect(&login).await?;
    // Requests wait while the application's database is queried, but not while the rehearsal queries a copy.
    let limits = Limits::each(time_limit());
    let limits = if database.is_some() { limits } else { limits.within(TOTAL_LIMIT) };
    Ok(invariants::ask_in_snapshot(&client, None, invariants, limits).await?)
}

fn warn_not_compared(context: &UpgradeContext<'_>, unanswered: &Unanswered) {
    context.reporter.report(Progress::Warning(format!("{unanswered}; it is not compared")));
}
