//! Runs and task instances that are over, as SQL for a database that `airflow db migrate` has made.

use super::secrets::PrivateFile;
use crate::config::Recipient;
use crate::error::Error;
use crate::postgres::PgError;
use futures_util::StreamExt;
use std::io::Write;
use std::path::Path;
use tokio_postgres::Client;

/// Columns of Airflow's own tables, and where we have them; in one order.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, &'static str, &'static str)],
    from: &'static str,
    /// What Airflow has besides and we have not: column and expression.
    besides: &'static str,
    besides_values: &'static str,
    /// Which of the rows; a run may be there already under another name.
    of_those: &'static str,
}

const DAG_RUN: Table = Table {
    name: "dag_run",
    columns: &[
        ("dag_id", "text", "r.dag_id"),
        ("run_id", "text", "r.run_id"),
        ("run_type", "text", "r.run_type"),
        ("state", "text", "r.state"),
        ("logical_date", "timestamptz", "r.logical_date"),
        ("run_after", "timestamptz", "r.run_after"),
        ("data_interval_start", "timestamptz", "r.data_interval_start"),
        ("data_interval_end", "timestamptz", "r.data_interval_end"),
        ("queued_at", "timestamptz", "r.queued_at"),
        ("start_date", "timestamptz", "r.start_date"),
        ("end_date", "timestamptz", "r.end_date"),
        ("conf", "json", "r.conf"),
        ("triggered_by", "text", "upper(r.triggered_by)"),
        ("triggering_user_name", "text", "r.triggering_user_name"),
        ("partition_key", "text", "r.partition_key"),
        ("partition_date", "timestamptz", "r.partition_date"),
    ],
    from: "dag_run r WHERE r.state IN ('success', 'failed')",
    besides: "clear_number, created_at, updated_at, log_template_id",
    besides_values: "0, queued_at, now(), (SELECT max(id) FROM log_template)",
    of_those: "true",
};

const TASK_INSTANCE: Table = Table {
    name: "task_instance",
    columns: &[
        ("dag_id", "text", "i.dag_id"),
        ("run_id", "text", "i.run_id"),
        ("task_id", "text", "i.task_id"),
        ("map_index", "integer", "i.map_index"),
        ("state", "text", "i.state"),
        ("try_number", "integer", "i.try_number"),
        ("max_tries", "integer", "i.max_tries"),
        ("start_date", "timestamptz", "i.start_date"),
        ("end_date", "timestamptz", "i.end_date"),
        ("duration", "double precision", "extract(epoch FROM i.end_date - i.start_date)::double precision"),
        ("pool", "text", "i.pool"),
        ("pool_slots", "integer", "i.pool_slots"),
        ("priority_weight", "integer", "i.priority_weight"),
        ("operator", "text", "i.operator"),
        ("queued_dttm", "timestamptz", "i.queued_at"),
        ("scheduled_dttm", "timestamptz", "i.scheduled_at"),
        ("rendered_map_index", "text", "left(i.rendered_map_index, 250)"),
    ],
    from: "task_instance i JOIN dag_run r USING (dag_id, run_id) WHERE r.state IN ('success', 'failed')",
    besides: "id, updated_at, queue, hostname",
    besides_values: "gen_random_uuid(), now(), 'default', ''",
    of_those: "EXISTS (SELECT FROM dag_run r WHERE (r.dag_id, r.run_id) = (of_leoflow.dag_id, of_leoflow.run_id))",
};

/// What was written, and what was not because it is not over.
pub struct Counts {
    pub runs: u64,
    pub task_instances: u64,
    pub left_out: i64,
}

/// Writes the file for `psql`; run twice it adds nothing.
pub async fn write(client: &mut Client, path: &Path, recipients: &[Recipient]) -> Result<Counts, Error> {
    let io = |error: std::io::Error| Error::io("write", path, &error);
    let query = |error: tokio_postgres::Error| Error::from(PgError::from(error));
    let mut output = PrivateFile::create(path, recipients).map_err(io)?;
    let file = output.writer();
    // Runs and their task instances are of one moment.
    let snapshot = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(query)?;
    file.write_all(b"-- For the database of Apache Airflow: psql -v ON_ERROR_STOP=1 -f history.sql\nSET client_encoding = 'UTF8';\nBEGIN;\n")
        .map_err(io)?;
    let runs = table(&snapshot, &DAG_RUN, file, &io).await?;
    let task_instances = table(&snapshot, &TASK_INSTANCE, file, &io).await?;
    let left_out = "SELECT count(*) FROM dag_run WHERE state NOT IN ('success', 'failed')";
    let left_out = snapshot.query_one(left_out, &[]).await.map_err(query)?.get(0);
    file.write_all(b"COMMIT;\n").map_err(io)?;
    output.finish().map_err(io)?;
    Ok(Counts { runs, task_instances, left_out })
}

/// The rows as they are copied, and the statement that moves them. Returns how many there are.
async fn table(
    snapshot: &tokio_postgres::Transaction<'_>,
    table: &Table,
    file: &mut impl Write,
    io: &impl Fn(std::io::Error) -> Error,
) -> Result<u64, Error> {
    let Table { name, columns, from, besides, besides_values, of_those } = table;
    let list = |pick: fn(&(&'static str, &'static str, &'static str)) -> String| {
        columns.iter().map(pick).collect::<Vec<_>>().join(", ")
    };
    let names = list(|(name, _, _)| (*name).to_owned());
    let typed = list(|(name, kind, _)| format!("{name} {kind}"));
    let values = list(|(_, _, value)| (*value).to_owned());
    let begin = format!("CREATE TEMPORARY TABLE of_leoflow ({typed}) ON COMMIT DROP;\nCOPY of_leoflow FROM stdin;\n");
    file.write_all(begin.as_bytes()).map_err(io)?;
    let copied = snapshot.copy_out(&format!("COPY (SELECT {values} FROM {from}) TO STDOUT")).await;
    let mut copied = std::pin::pin!(copied.map_err(PgError::from)?);
    let mut rows = 0;
    while let Some(chunk) = copied.next().await {
        let chunk = chunk.map_err(PgError::from)?;
        rows += 1;
        file.write_all(&chunk).map_err(io)?;
    }
    let end = format!(
        "\\.\nINSERT INTO {name} ({names}, {besides})\nSELECT {names}, {besides_values} FROM of_leoflow\nWHERE {of_those}\nON CONFLICT DO NOTHING;\n\
         DROP TABLE of_leoflow;\n"
    );
    file.write_all(end.as_bytes()).map_err(io)?;
    Ok(rows)
}
