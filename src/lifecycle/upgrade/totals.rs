//! Compares the answers of the invariants before and after a change of the schema. No other session may write
//! meanwhile.

use super::UpgradeError;
use super::upgrade_context::UpgradeContext;
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::Login;
use leoflow_postgres::totals::{self, Answer, Answers, Invariant, Limits, TIME_LIMIT, Unanswered};
use std::time::Duration;

/// Time limit of all invariants together while requests wait.
const TOTAL_LIMIT: Duration = Duration::from_secs(5);

/// Evaluates the invariants in the application's database, or in `database`. Warns about an invariant without an answer,
/// which is then not compared.
pub(super) async fn read(context: &UpgradeContext<'_>, database: Option<&str>) -> Result<Vec<Answer>, UpgradeError> {
    let Answers { answers, unanswered } = ask(context, database, INVARIANTS).await?;
    unanswered
        .iter()
        .filter(|invariant| !invariant.is_of_other_release())
        .for_each(|invariant| warn_not_compared(context, invariant));
    Ok(answers)
}

/// Fails if an answer differs from the one in `before`.
pub(super) async fn require_unchanged(
    context: &UpgradeContext<'_>,
    before: &[Answer],
    database: Option<&str>,
) -> Result<(), UpgradeError> {
    let after = ask(context, database, &totals::answered(INVARIANTS, before)).await?;
    if let Some(difference) = totals::differences(before, &after.answers).into_iter().next() {
        return Err(UpgradeError::Totals(difference));
    }
    after.unanswered.iter().for_each(|unanswered| warn_not_compared(context, unanswered));
    Ok(())
}

/// Warns if an answer differs from the one in `before`, after a rollback, which is kept in any case.
pub(super) async fn warn_if_changed(context: &UpgradeContext<'_>, before: &[Answer]) {
    if let Err(error) = require_unchanged(context, before, None).await {
        context.reporter.warn(format!("after the rollback, {error}"));
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
    let limits = Limits::each(TIME_LIMIT);
    let limits = if database.is_some() { limits } else { limits.within(TOTAL_LIMIT) };
    Ok(totals::ask_in_snapshot(&client, None, invariants, limits).await?)
}

fn warn_not_compared(context: &UpgradeContext<'_>, unanswered: &Unanswered) {
    context.reporter.warn(format!("{unanswered}; it is not compared"));
}
