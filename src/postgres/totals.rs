//! Answers of invariants: named queries over the datastore that give the same answer before and after a backup's
//! restore or a migration. Every query runs read-only, with a time limit, and with settings that its text depends on
//! fixed, so that an answer depends on the data only.

use crate::PgError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;

/// A query of one value. Its answer stays the same unless data is lost or altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invariant {
    pub name: &'static str,
    pub query: &'static str,
}

/// An invariant with its answer as text; `None` is SQL's NULL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub name: String,
    pub query: String,
    pub answer: Option<String>,
}

/// An invariant without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the invariant {name:?} has no answer: {}", self.reason())]
pub struct Unanswered {
    name: &'static str,
    limit: Duration,
    source: PgError,
}

impl Unanswered {
    /// True if a table, column or function of the query is missing: another release has renamed it, or does not have
    /// it yet. The data is not damaged.
    pub fn is_of_other_release(&self) -> bool {
        let missing = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION];
        self.source.sql_state().is_some_and(|code| missing.contains(code))
    }

    fn reason(&self) -> String {
        match self.source.sql_state() {
            Some(&SqlState::QUERY_CANCELED) => format!("it did not answer within {} s", self.limit.as_secs_f64()),
            _ => one_line(&self.source.to_string()),
        }
    }
}

/// The answers of several invariants from one state of the database.
#[derive(Debug, Default)]
pub struct Answers {
    pub answers: Vec<Answer>,
    pub unanswered: Vec<Unanswered>,
}

/// An invariant whose answer changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub name: String,
    pub query: String,
    pub expected: Option<String>,
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, query, expected, found } = self;
        let (expected, found) = (shown(expected.as_deref()), shown(found.as_deref()));
        write!(f, "the invariant {name:?} answered {expected} and now answers {found} ({})", one_line(query))
    }
}

/// An answer in a message.
fn shown(answer: Option<&str>) -> String {
    answer.map_or_else(|| "NULL".to_owned(), one_line)
}

/// Converts a text to one line of at most 300 characters, without control characters: the text may come from a backup.
fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    if line.chars().count() <= 300 { line } else { line.chars().take(297).chain("...".chars()).collect() }
}

/// Time limit of one query.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Settings that the text of an answer depends on.
const SETTINGS: &str = "SET LOCAL search_path = public; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD';
    SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
    SET LOCAL lc_monetary = 'C'; SET LOCAL lc_numeric = 'C'; SET LOCAL lc_time = 'C';
    SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0";
/// Runs before each query: `END` undoes its changes, and a read-only subtransaction cannot become writable again.
const BEGIN: &str = "SAVEPOINT leoflow_invariant; SET LOCAL transaction_read_only = on";
const END: &str = "ROLLBACK TO SAVEPOINT leoflow_invariant; RELEASE SAVEPOINT leoflow_invariant";

/// How long queries may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    each: Duration,
    total: Duration,
}

impl Limits {
    pub fn each(limit: Duration) -> Self {
        Self { each: limit, total: Duration::MAX }
    }

    /// The limit of all queries together. Those that remain after it have no answer.
    pub fn total(limit: Duration) -> Self {
        Self { each: limit, total: limit }
    }

    /// The same limit of each query, and another of all together.
    pub fn within(self, total: Duration) -> Self {
        Self { total, ..self }
    }
}

/// Runs the queries of the invariants within the limits. `client` must be in a transaction, which stays usable. Fails
/// only if the connection does.
pub async fn ask(client: &impl GenericClient, invariants: &[Invariant], limits: Limits) -> Result<Answers, PgError> {
    let begun = Instant::now();
    let mut answers = Answers::default();
    for Invariant { name, query } in invariants {
        // PostgreSQL reads 0 as no limit.
        let limit = limits.each.min(limits.total.saturating_sub(begun.elapsed())).max(Duration::from_millis(1));
        let limit_ms = limit.as_millis();
        client.batch_execute(&format!("{BEGIN}; {SETTINGS}; SET LOCAL statement_timeout = {limit_ms}")).await?;
        let row = client.query_one(&as_text(query), &[]).await.and_then(|row| row.try_get(0));
        // Fails if the connection was lost.
        client.batch_execute(END).await?;
        match row {
            Ok(answer) => {
                answers.answers.push(Answer { name: (*name).to_owned(), query: (*query).to_owned(), answer });
            }
            Err(error) => answers.unanswered.push(Unanswered { name, limit, source: error.into() }),
        }
    }
    Ok(answers)
}

/// Like [`ask`], in a transaction of its own that imports `snapshot`, an id of `pg_export_snapshot`, if there is one.
pub async fn ask_in_snapshot(
    client: &tokio_postgres::Client,
    snapshot: Option<&str>,
    invariants: &[Invariant],
    limits: Limits,
) -> Result<Answers, PgError> {
    let import = snapshot.map(|id| format!("; SET TRANSACTION SNAPSHOT '{id}'")).unwrap_or_default();
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY{import}")).await?;
    let answers = ask(client, invariants, limits).await?;
    client.batch_execute("ROLLBACK").await?;
    Ok(answers)
}

/// The query with its answer as text.
fn as_text(query: &str) -> String {
    format!("SELECT (a.answer)::text FROM ({query}) AS a(answer)")
}

/// SQL for the end of a transaction that fails if an answer differs. Only for queries that this program wrote itself.
pub fn sql_checks(answers: &[Answer]) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let check = |answer: &Answer| {
        let expected = answer.answer.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        format!(
            "  IF ({}) IS DISTINCT FROM {expected} THEN RAISE EXCEPTION 'the invariant % does not have its answer', {}; \
             END IF;\n",
            as_text(&answer.query),
            literal(&answer.name)
        )
    };
    let checks: String = answers.iter().map(check).collect();
    format!("{SETTINGS};\nDO $totals$\nBEGIN\n{checks}END\n$totals$;\n")
}

/// The `invariants` that are among `answers`, to run their queries again.
pub fn answered(invariants: &[Invariant], answers: &[Answer]) -> Vec<Invariant> {
    invariants.iter().copied().filter(|invariant| answers.iter().any(|answer| answer.is_of(invariant))).collect()
}

impl Answer {
    /// True for the answer of this invariant; another release may have given its query the same name.
    pub fn is_of(&self, invariant: &Invariant) -> bool {
        (self.name.as_str(), self.query.as_str()) == (invariant.name, invariant.query)
    }
}

/// Compares the answers of invariants that have one in both states.
pub fn differences(expected: &[Answer], found: &[Answer]) -> Vec<Difference> {
    let compare = |expected: &Answer| {
        let found = found.iter().find(|found| (&found.name, &found.query) == (&expected.name, &expected.query))?;
        (found.answer != expected.answer).then(|| Difference {
            name: expected.name.clone(),
            query: expected.query.clone(),
            expected: expected.answer.clone(),
            found: found.answer.clone(),
        })
    };
    expected.iter().filter_map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, answer: Option<&str>) -> Answer {
        Answer { name: name.to_owned(), query: "SELECT\n 1".to_owned(), answer: answer.map(str::to_owned) }
    }

    #[test]
    fn names_each_changed_answer_and_ignores_the_unanswered() {
        let before = [answer("a", Some("1")), answer("b", None), answer("c", Some("3")), answer("d", Some("4"))];
        let after = [answer("a", Some("1")), answer("b", Some("2")), answer("c", Some("4"))];
        let texts: Vec<String> = differences(&before, &after).iter().map(Difference::to_string).collect();
        assert_eq!(
            texts,
            [
                "the invariant \"b\" answered NULL and now answers 2 (SELECT 1)",
                "the invariant \"c\" answered 3 and now answers 4 (SELECT 1)"
            ]
        );
        let mut other_query = after[2].clone();
        other_query.query = "SELECT 2".to_owned();
        assert!(differences(&before[2..3], &[other_query]).is_empty());
    }

    #[test]
    fn a_text_from_a_backup_cannot_act_on_the_terminal() {
        assert_eq!(one_line("SELECT\u{1b}]0;x\u{7}\n 1"), "SELECT ]0;x 1");
        assert_eq!(one_line(&"x".repeat(400)).len(), 300);
    }
}
