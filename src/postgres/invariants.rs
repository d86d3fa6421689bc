//! Answers of invariants: named queries over the datastore that give the same answer before and after a backup's
//! restore or a migration. Every query runs read-only, with a time limit, and with settings that its text depends on
//! fixed, so that an answer depends on the data only.

use crate::PgError;
use leoflow_base::config::Invariant;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;

/// An invariant with its answer as text; `None` is SQL's NULL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub name: String,
    pub query: String,
    pub answer: Option<String>,
}

/// An invariant without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the invariant {:?} has no answer: {reason}", .invariant.name)]
pub struct Unanswered {
    pub invariant: Invariant,
    pub reason: String,
    /// True when a table, column or function that the query names does not exist.
    pub names_missing_object: bool,
}

/// The answers of several invariants from one state of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
pub fn time_limit() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_INVARIANT_LIMIT", Duration::from_secs(30))
}

/// Maximum length of an answer, in characters. A longer one does not fit into a message or a manifest.
pub const ANSWER_LIMIT: usize = 4096;
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
    for invariant in invariants {
        // PostgreSQL reads 0 as no limit.
        let limit = limits.each.min(limits.total.saturating_sub(begun.elapsed())).max(Duration::from_millis(1));
        let limit_ms = limit.as_millis();
        client.batch_execute(&format!("{BEGIN}; {SETTINGS}; SET LOCAL statement_timeout = {limit_ms}")).await?;
        let answer = ask_one(client, &invariant.query).await;
        // Fails if the connection was lost.
        client.batch_execute(END).await?;
        match answer {
            Ok(answer) => {
                let Invariant { name, query } = invariant.clone();
                answers.answers.push(Answer { name, query, answer });
            }
            Err(error) => answers.unanswered.push(Unanswered {
                invariant: invariant.clone(),
                names_missing_object: error.names_missing_object(),
                reason: error.reason(limit),
            }),
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

/// Why a query has no answer.
enum QueryError {
    Sql(tokio_postgres::Error),
    Parameters,
    Columns(usize),
    Rows(usize),
    TooLong,
}

impl From<tokio_postgres::Error> for QueryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl QueryError {
    fn names_missing_object(&self) -> bool {
        let missing = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION];
        matches!(self, Self::Sql(error) if error.code().is_some_and(|code| missing.contains(code)))
    }

    fn reason(self, limit: Duration) -> String {
        match self {
            Self::Sql(error) => match error.code() {
                Some(&SqlState::QUERY_CANCELED) => format!("it did not answer within {} s", limit.as_secs_f64()),
                Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => "it writes; a query may only read".to_owned(),
                _ => one_line(&PgError::from(error).to_string()),
            },
            Self::Parameters => "it has a parameter such as $1".to_owned(),
            Self::Columns(0) => "it returns nothing; a query is a SELECT of one column".to_owned(),
            Self::Columns(columns) => format!("it returns {columns} columns instead of one"),
            Self::Rows(0) => "it returns no row; aggregate, so that it always returns one".to_owned(),
            Self::Rows(_) => "it returns more than one row; aggregate, for example with count or sum".to_owned(),
            Self::TooLong => format!("its answer is longer than {ANSWER_LIMIT} characters; return a hash of it"),
        }
    }
}

async fn ask_one(client: &impl GenericClient, query: &str) -> Result<Option<String>, QueryError> {
    // Only a complete single statement can be prepared, so none of its text can end the subquery below.
    let prepared = client.prepare(query).await?;
    if !prepared.params().is_empty() {
        return Err(QueryError::Parameters);
    }
    if prepared.columns().len() != 1 {
        return Err(QueryError::Columns(prepared.columns().len()));
    }
    let rows = client.query(&format!("{} LIMIT 2", as_text(query)), &[]).await?;
    let [row] = rows.as_slice() else { return Err(QueryError::Rows(rows.len())) };
    let answer: Option<String> = row.try_get(0)?;
    match answer.as_ref().is_some_and(|answer| answer.chars().count() > ANSWER_LIMIT) {
        true => Err(QueryError::TooLong),
        false => Ok(answer),
    }
}

/// The query with its answer as text, cut off after one character more than the limit.
fn as_text(query: &str) -> String {
    let statement = query.trim_end().trim_end_matches(';');
    format!("SELECT left((a.answer)::text, {}) FROM (\n{statement}\n) AS a(answer)", ANSWER_LIMIT + 1)
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

/// The invariants of these answers, to run their queries again.
pub fn invariants_of(answers: &[Answer]) -> Vec<Invariant> {
    answers.iter().map(|answer| Invariant { name: answer.name.clone(), query: answer.query.clone() }).collect()
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
