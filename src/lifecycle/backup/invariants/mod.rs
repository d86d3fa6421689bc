//! The totals of a backup: the answers of the built-in invariants and of those in `backup.invariants`. An invariant is
//! a query whose answer a restore must not change.

mod unfit;

use super::create::survey::{Tables, survey};
use leoflow_base::config::Invariant;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_engine::store::totals;
use leoflow_postgres::invariants::{self, Answer, Answers, Unanswered, time_limit};
use leoflow_postgres::{Access, Login, PgError};
use tokio_postgres::Client;

/// Checks a new invariant: which objects it reads, and that it answers within the time limit. The inner `Err` is the
/// reason why the query cannot be an invariant. Changes nothing.
pub async fn check(access: &Access, login: &Login, invariant: &Invariant) -> Result<Result<Answer, String>, PgError> {
    let client = access.connect(login).await?;
    let inventory = survey(&client, Tables::Known).await?;
    let tables: Vec<&str> = inventory.tables().collect();
    if let Some(reason) = unfit::reason(&client, invariant, &tables).await? {
        return Ok(Err(reason));
    }
    let mut answers = invariants::ask_in_snapshot(
        &client,
        None,
        std::slice::from_ref(invariant),
        invariants::Limits::each(time_limit()),
    )
    .await?;
    Ok(answers.answers.pop().ok_or_else(|| answers.unanswered.pop().map(|none| none.reason).unwrap_or_default()))
}

/// Evaluates the invariants in a backup's snapshot, on a connection of its own. `own` are the user's invariants,
/// `tables` the tables in the backup. A missing answer is only a warning: a backup without it is better than none.
pub(crate) async fn answers_for_backup(
    access: &Access,
    snapshot: &str,
    own: &[Invariant],
    tables: &[&str],
    reporter: &dyn Reporter,
) -> Vec<Answer> {
    let warn = |text: String| reporter.report(Progress::Warning(text));
    let evaluation = async {
        let client = access.connect(&access.application()).await?;
        let fit = fit_for_backup(&client, own, tables, &warn).await?;
        invariants::ask_in_snapshot(
            &client,
            Some(snapshot),
            &totals::with_own(&fit),
            invariants::Limits::each(time_limit()),
        )
        .await
    };
    match evaluation.await {
        Ok(Answers { answers, unanswered }) => {
            unanswered.iter().filter(|invariant| !is_of_other_release(invariant)).for_each(|invariant| {
                warn(format!("{invariant}; the backup is made without it"));
            });
            answers
        }
        Err(error) => {
            warn(format!("the backup is made without totals: {error}"));
            Vec::new()
        }
    }
}

/// Returns the user's invariants that a restored backup can answer; warns about the others.
async fn fit_for_backup(
    client: &Client,
    own: &[Invariant],
    tables: &[&str],
    warn: &impl Fn(String),
) -> Result<Vec<Invariant>, PgError> {
    let mut fit = Vec::new();
    for invariant in own {
        match unfit::reason(client, invariant, tables).await? {
            None => fit.push(invariant.clone()),
            Some(reason) => {
                let name = &invariant.name;
                warn(format!("the invariant {name:?} cannot be used: {reason}; the backup is made without it"));
            }
        }
    }
    Ok(fit)
}

/// True for a built-in invariant whose tables the database's release does not have.
pub(crate) fn is_of_other_release(unanswered: &Unanswered) -> bool {
    unanswered.names_missing_object && totals::is_built_in(&unanswered.invariant)
}
