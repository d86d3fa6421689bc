//! Exports finished runs and task instances as SQL for a database created by `airflow db migrate`.

use futures_util::StreamExt;
use leoflow_postgres::PgError;
use std::io::{self, Write};
use tokio_postgres::{Client, IsolationLevel, Transaction};

/// Describes how the exported file fills one of Airflow's tables: it copies Leoflow's rows into the temporary table
/// `of_leoflow`, then inserts them into Airflow's table.
struct Table {
    /// The name of Airflow's table.
    name: &'static str,
    /// Name and type of each of Airflow's columns, and the expression over Leoflow's tables that computes its value.
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// The FROM and WHERE clauses that select the exported rows from Leoflow's tables.
    from: &'static str,
    /// Airflow's columns without a counterpart in Leoflow's tables; `extra_values` are their expressions over
    /// `of_leoflow`, in this order.
    extra_columns: &'static str,
    extra_values: &'static str,
    /// SQL condition for the rows of `of_leoflow` to insert. If Airflow already has a run with the same logical date
    /// under another run id, `ON CONFLICT DO NOTHING` skips Leoflow's run, and this condition its task instances.
    row_filter: &'static str,
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
    extra_columns: "clear_number, created_at, updated_at, log_template_id",
    extra_values: "0, queued_at, now(), (SELECT max(id) FROM log_template)",
    row_filter: "true",
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
    // Airflow before 3.4 has no loops.
    from: "task_instance i JOIN dag_run r USING (dag_id, run_id)
           WHERE r.state IN ('success', 'failed') AND i.map_index >= -1",
    extra_columns: "id, updated_at, queue, hostname",
    extra_values: "gen_random_uuid(), now(), 'default', ''",
    row_filter: "EXISTS (SELECT FROM dag_run r WHERE (r.dag_id, r.run_id) = (of_leoflow.dag_id, of_leoflow.run_id))",
};

/// Numbers of exported rows.
pub struct Counts {
    pub runs: u64,
    pub task_instances: u64,
    /// Number of runs left out because they have not finished.
    pub left_out: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("cannot write the history: {0}")]
    Write(#[from] io::Error),
}

leoflow_postgres::from_query_error!(ExportError);

/// Writes a file for `psql`. `psql` can run the file again: rows that are already in Airflow's database are skipped.
pub async fn write(client: &mut Client, file: &mut impl Write) -> Result<Counts, ExportError> {
    // One snapshot, so that runs and task instances agree.
    let snapshot =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
    file.write_all(b"-- For the database of Apache Airflow: psql -v ON_ERROR_STOP=1 -f history.sql\nSET client_encoding = 'UTF8';\nBEGIN;\n")?;
    let runs = write_table(&snapshot, &DAG_RUN, file).await?;
    let task_instances = write_table(&snapshot, &TASK_INSTANCE, file).await?;
    let count_left_out = "SELECT count(*) FROM dag_run WHERE state NOT IN ('success', 'failed')";
    let left_out = snapshot.query_one(count_left_out, &[]).await?.get(0);
    file.write_all(b"COMMIT;\n")?;
    Ok(Counts { runs, task_instances, left_out })
}

/// Writes the statements that fill one table, with the rows in COPY format. Returns the number of rows.
async fn write_table(snapshot: &Transaction<'_>, table: &Table, file: &mut impl Write) -> Result<u64, ExportError> {
    let Table { name, columns, from, extra_columns, extra_values, row_filter } = table;
    let column_list = |to_text: fn(&(&'static str, &'static str, &'static str)) -> String| {
        columns.iter().map(to_text).collect::<Vec<_>>().join(", ")
    };
    let names = column_list(|(name, _, _)| (*name).to_owned());
    let definitions = column_list(|(name, kind, _)| format!("{name} {kind}"));
    let values = column_list(|(_, _, value)| (*value).to_owned());
    write!(file, "CREATE TEMPORARY TABLE of_leoflow ({definitions}) ON COMMIT DROP;\nCOPY of_leoflow FROM stdin;\n")?;
    let copied = snapshot.copy_out(&format!("COPY (SELECT {values} FROM {from}) TO STDOUT")).await?;
    let mut copied = std::pin::pin!(copied);
    let mut rows = 0;
    // PostgreSQL sends each row as one message, and the stream yields one message at a time.
    while let Some(row) = copied.next().await {
        rows += 1;
        file.write_all(&row?)?;
    }
    write!(
        file,
        "\\.\nINSERT INTO {name} ({names}, {extra_columns})\nSELECT {names}, {extra_values} FROM of_leoflow\nWHERE {row_filter}\nON CONFLICT DO NOTHING;\n\
         DROP TABLE of_leoflow;\n"
    )?;
    Ok(rows)
}
