//! Finds reasons why a query cannot be an invariant: its answer could change although the data does not. Creates a
//! temporary view of the query and rolls it back: a view cannot write, and the parse tree in the view's rule names
//! every object that the query uses.

use leoflow_base::config::Invariant;
use leoflow_postgres::PgError;
use leoflow_postgres::invariants::time_limit;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Functions that PostgreSQL does not declare volatile, although their result depends on the time, the session or the
/// server.
const SESSION_FUNCTIONS: &[&str] = &[
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_setting",
    "version",
    "pg_backend_pid",
    "pg_postmaster_start_time",
    "pg_conf_load_time",
    "txid_current",
    "txid_current_snapshot",
    "pg_current_xact_id",
    "pg_current_snapshot",
];
/// Aggregates whose result depends on the order of rows.
const ORDERED_AGGREGATES: &[&str] = &[
    "array_agg",
    "string_agg",
    "json_agg",
    "json_agg_strict",
    "jsonb_agg",
    "jsonb_agg_strict",
    "json_object_agg",
    "json_object_agg_strict",
    "xmlagg",
];

/// Returns one reason against the view's query, found in its parse tree or in its dependencies. Parameters: the tables
/// in a backup, `SESSION_FUNCTIONS`, `ORDERED_AGGREGATES`. PostgreSQL's own objects have ids below 16384.
const REASON: &str = r"
    WITH rule AS MATERIALIZED (
        SELECT oid, ev_class, ev_action::text AS tree FROM pg_rewrite
        WHERE ev_class = 'pg_temp.leoflow_invariant'::regclass),
    relations AS (
        SELECT DISTINCT (regexp_matches(tree, ':relid (\d+)', 'g'))[1]::oid AS oid FROM rule),
    functions AS (
        SELECT DISTINCT (regexp_matches(tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g'))[1]::oid AS oid FROM rule),
    aggregates AS (
        SELECT DISTINCT (match.parts)[1]::oid AS oid
        FROM rule, regexp_matches(tree, '\{AGGREF :aggfnoid (\d+) .*?:aggorder (<>|\()', 'g') AS match(parts)
        WHERE (match.parts)[2] = '<>')
    SELECT 'it reads ' || c.oid::regclass || ', which no backup contains'
    FROM relations JOIN pg_class c USING (oid)
    WHERE c.oid <> (SELECT ev_class FROM rule)
      AND NOT (c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname::text = ANY($1))
    UNION ALL SELECT 'it calls ' || p.proname || ', which no backup contains'
    FROM functions JOIN pg_proc p USING (oid) WHERE p.oid >= 16384
    UNION ALL SELECT 'it calls ' || p.proname || ', whose result changes without the data'
    FROM functions JOIN pg_proc p USING (oid)
    WHERE p.provolatile = 'v' OR p.proname::text = ANY($2) OR (p.proname = 'age' AND p.pronargs = 1)
    UNION ALL SELECT 'it aggregates to a floating-point number, which can depend on the order of rows: use numeric'
    FROM functions JOIN pg_proc p USING (oid)
    WHERE p.prokind = 'a' AND p.prorettype IN ('float4'::regtype, 'float8'::regtype) AND p.proname NOT IN ('min', 'max')
    UNION ALL SELECT p.proname || ' needs an ORDER BY, because a restore changes the order of rows'
    FROM aggregates JOIN pg_proc p USING (oid) WHERE p.proname::text = ANY($3)
    UNION ALL SELECT 'it uses the date, the time or the role of the session, which change without the data'
    FROM rule WHERE tree LIKE '%{SQLVALUEFUNCTION %'
    UNION ALL SELECT 'it uses a system column such as ctid or xmin, which a restore changes'
    FROM rule WHERE tree ~ ':varattno -\d'
    UNION ALL SELECT 'it samples rows' FROM rule WHERE tree LIKE '%{TABLESAMPLECLAUSE %'
    UNION ALL SELECT 'it uses ' || pg_describe_object(d.refclassid, d.refobjid, 0) || ', which no backup contains'
    FROM pg_depend d JOIN rule ON d.classid = 'pg_rewrite'::regclass AND d.objid = rule.oid
    WHERE d.refobjid >= 16384 AND d.refclassid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass)
    LIMIT 1";

/// Returns why the query cannot be an invariant; `None` if its definition gives no reason. Does not run the query:
/// its answer may still be unsuitable. `tables` are those in a backup. Changes nothing.
pub(super) async fn reason(client: &Client, invariant: &Invariant, tables: &[&str]) -> Result<Option<String>, PgError> {
    let limit = time_limit().as_millis();
    client.batch_execute(&format!("BEGIN; SET LOCAL statement_timeout = {limit}")).await?;
    let outcome = reason_in_transaction(client, invariant, tables).await;
    client.batch_execute("ROLLBACK").await?;
    match outcome {
        Err(PgError::Query(error)) if error.as_db_error().is_some() => Ok(Some(statement_fault(error))),
        other => other,
    }
}

async fn reason_in_transaction(
    client: &Client,
    invariant: &Invariant,
    tables: &[&str],
) -> Result<Option<String>, PgError> {
    let query = invariant.query.trim_end().trim_end_matches(';');
    // The extended protocol refuses a text with several statements.
    client.execute(&format!("CREATE TEMPORARY VIEW leoflow_invariant AS\n{query}"), &[]).await?;
    let row = client.query_opt(REASON, &[&tables, &SESSION_FUNCTIONS, &ORDERED_AGGREGATES]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Describes why PostgreSQL does not accept the query as a view.
fn statement_fault(error: tokio_postgres::Error) -> String {
    match error.code() {
        Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
            format!("it may only read, in one SELECT without parameters: {}", PgError::from(error))
        }
        Some(&SqlState::SYNTAX_ERROR) => format!("it is not a single SELECT: {}", PgError::from(error)),
        _ => PgError::from(error).to_string(),
    }
}
