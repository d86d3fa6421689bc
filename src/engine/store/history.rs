//! Removal of old history: finished runs with their tasks, entries of the audit log, asset events and DAG versions.
//!
//! The rules of what stays are in the statements, so that a preview and a removal agree.

use crate::model::keys::RunKey;
use crate::store::Result;
use crate::store::rows::{fetch_all, fetch_one};
use deadpool_postgres::{ClientWrapper, Transaction};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::types::ToSql;

leoflow_base::words! {
    /// What a clean-up removes, by Airflow's names of its tables, and the task logs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Table: name {
        /// Runs, with everything that belongs to them.
        DagRun = "dag_run",
        /// The XComs of runs; the runs stay if `dag_run` is not selected.
        Xcom = "xcom",
        /// The rendered fields of runs, like `Xcom`.
        RenderedFields = "rendered_task_instance_fields",
        Log = "log",
        AssetEvent = "asset_event",
        DagVersion = "dag_version",
        TaskLogs = "task_logs",
    }
}

/// The finished runs of a DAG that may be removed: those that ended before a time and are not among the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldRuns {
    pub dag_id: String,
    pub ended_before: Timestamp,
    /// Number of the newest runs that stay whenever they ended.
    pub keep_runs: i64,
}

impl OldRuns {
    fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.dag_id, &self.ended_before, &self.keep_runs]
    }
}

/// Selects the [`OldRuns`], which are the first three parameters. These stay with any limits: the newest run of
/// each type, which the next run of an asset-triggered DAG begins at; the newest that stands for a scheduled one; the
/// runs that `depends_on_past` of an unfinished run, of the next scheduled one and of a later one refers to (see
/// `previous_run`); runs of a backfill that is not complete; runs with tries that are still being stopped, or with
/// callbacks or deadlines that are due.
const OLD_RUNS: &str = "
    WITH next_date (date) AS (
        SELECT logical_date FROM dag_run
        WHERE dag_id = $1 AND state IN ('queued', 'running') AND logical_date IS NOT NULL
        UNION SELECT next_logical_date FROM dag WHERE dag_id = $1 AND next_logical_date IS NOT NULL
        UNION SELECT 'infinity'),
    needed (run_id) AS MATERIALIZED (
        SELECT p.run_id FROM next_date CROSS JOIN LATERAL (
            SELECT run_id FROM dag_run WHERE dag_id = $1 AND logical_date < date
            ORDER BY logical_date DESC LIMIT 1) p
        UNION SELECT p.run_id FROM next_date CROSS JOIN LATERAL (
            SELECT run_id FROM dag_run WHERE dag_id = $1 AND logical_date < date AND run_type <> 'manual'
            ORDER BY logical_date DESC LIMIT 1) p
        UNION (SELECT run_id FROM dag_run WHERE dag_id = $1 ORDER BY run_after DESC, run_id LIMIT $3)
        UNION SELECT run_id FROM dag_run JOIN (
                  SELECT run_type, max(run_after) AS run_after FROM dag_run WHERE dag_id = $1 GROUP BY run_type) newest
              USING (run_type, run_after) WHERE dag_id = $1
        UNION (SELECT run_id FROM dag_run WHERE dag_id = $1 AND stands_for_scheduled ORDER BY logical_date DESC LIMIT 1)
        UNION SELECT r.run_id FROM dag_run r JOIN backfill b ON b.id = r.backfill_id
              WHERE r.dag_id = $1 AND b.completed_at IS NULL
        UNION SELECT run_id FROM task_try WHERE dag_id = $1 AND state = 'running'
        UNION SELECT run_id FROM dag_callback WHERE dag_id = $1
        UNION SELECT run_id FROM deadline WHERE dag_id = $1 AND state IN ('scheduled', 'running'))
    SELECT r.run_id FROM dag_run r
    WHERE r.dag_id = $1 AND r.state IN ('success', 'failed') AND coalesce(r.end_date, r.queued_at) < $2
      AND r.run_id NOT IN (SELECT run_id FROM needed)";

/// Lists the old runs of a DAG, oldest first; with `table`, only runs that have rows there.
pub async fn old_runs(client: &impl GenericClient, old: &OldRuns, table: Table) -> Result<Vec<String>> {
    let condition = match table {
        Table::DagRun => String::new(),
        other => {
            format!(" AND EXISTS (SELECT FROM {} c WHERE c.dag_id = r.dag_id AND c.run_id = r.run_id)", other.name())
        }
    };
    let query = format!("{OLD_RUNS}{condition} ORDER BY r.run_after, r.run_id");
    fetch_all(client, &query, &old.parameters()).await
}

/// Locks those of `run_ids` that are still old runs until the transaction ends. Runs that another transaction has locked
/// are left out.
pub async fn lock_old_runs(transaction: &Transaction<'_>, old: &OldRuns, run_ids: &[String]) -> Result<Vec<String>> {
    let query = format!("{OLD_RUNS} AND r.run_id = ANY ($4) ORDER BY r.run_id FOR UPDATE OF r SKIP LOCKED");
    let [dag_id, before, keep] = old.parameters();
    fetch_all(transaction, &query, &[dag_id, before, keep, &run_ids]).await
}

/// The old runs of a DAG, and how many of their rows each table has.
pub async fn count_old_runs(client: &impl GenericClient, old: &OldRuns) -> Result<Vec<(String, i64)>> {
    let tables = ["dag_run", "task_instance", "task_try", "xcom", "rendered_task_instance_fields"];
    let counts = tables.map(|table| {
        format!("SELECT '{table}', count(*) FROM {table} WHERE dag_id = $1 AND run_id IN (SELECT run_id FROM old)")
    });
    let query = format!("WITH old AS MATERIALIZED ({OLD_RUNS}) {}", counts.join(" UNION ALL "));
    fetch_all(client, &query, &old.parameters()).await
}

/// Removes rows of locked runs of a DAG: from `dag_run` with everything that belongs to the runs, from another table only
/// those. Returns the number of removed rows in that table.
pub async fn remove_of_runs(
    transaction: &Transaction<'_>,
    table: Table,
    dag_id: &str,
    run_ids: &[String],
) -> Result<u64> {
    let query = format!("DELETE FROM {} WHERE dag_id = $1 AND run_id = ANY ($2)", table.name());
    Ok(transaction.execute(&query, &[&dag_id, &run_ids]).await?)
}

/// The rows of a table without runs that may be removed, older than `before`; of the DAGs `dag_ids`, or all of them.
#[derive(Debug, Clone)]
pub struct OldRows {
    pub table: Table,
    pub before: Timestamp,
    pub dag_ids: Option<Vec<String>>,
    /// Not of these DAGs.
    pub except: Vec<String>,
}

impl OldRows {
    /// Selects the rows, by `ctid`; the parameters are those of [`Self::parameters`]. `None` for a table of runs.
    fn select(&self) -> Option<&'static str> {
        Some(match self.table {
            Table::Log => {
                "SELECT ctid FROM event_log
                 WHERE created_at < $1 AND ($2::text[] IS NULL OR dag_id = ANY ($2)) AND coalesce(dag_id, '') <> ALL ($3::text[]) ORDER BY created_at"
            }
            // An event stays while a DAG may still read it for its next run (see `assets::make_run`), while a run that
            // it has triggered stays, while a partition waits, and while it is the newest of its asset.
            Table::AssetEvent => {
                "SELECT e.ctid FROM asset_event e JOIN asset a ON a.id = e.asset_id
                 WHERE e.happened_at < $1 AND ($2::text[] IS NULL OR e.source_dag_id = ANY ($2)) AND coalesce(e.source_dag_id, '') <> ALL ($3::text[])
                   AND NOT EXISTS (SELECT FROM asset_partition_event p WHERE p.event_id = e.id)
                   AND NOT EXISTS (SELECT FROM dag_run_asset_event l WHERE l.event_id = e.id)
                   AND EXISTS (SELECT FROM asset_event n WHERE n.asset_id = e.asset_id AND n.happened_at > e.happened_at)
                   AND NOT EXISTS (
                       SELECT FROM dag_asset s WHERE s.role = 'schedule'
                         AND (s.name = a.name OR s.uri = a.uri OR s.kind = 'alias' AND EXISTS (
                             SELECT FROM asset_alias_asset l JOIN asset_alias n ON n.id = l.alias_id
                             WHERE n.name = s.name AND l.asset_id = a.id))
                         AND e.happened_at > coalesce((SELECT max(run_after) FROM dag_run r
                             WHERE r.dag_id = s.dag_id AND r.run_type = 'asset_triggered'), '-infinity'))
                 ORDER BY e.happened_at"
            }
            Table::DagVersion => {
                "SELECT v.ctid FROM dag_version v
                 WHERE v.created_at < $1 AND ($2::text[] IS NULL OR v.dag_id = ANY ($2)) AND coalesce(v.dag_id, '') <> ALL ($3::text[])
                   AND NOT EXISTS (SELECT FROM dag d WHERE d.current_version_id = v.id)
                   AND NOT EXISTS (SELECT FROM dag_run r WHERE r.dag_version_id = v.id)
                   AND NOT EXISTS (SELECT FROM deadline e WHERE e.dag_version_id = v.id)
                   AND EXISTS (SELECT FROM dag_version n
                               WHERE n.dag_id = v.dag_id AND n.version_number > v.version_number)"
            }
            Table::DagRun | Table::Xcom | Table::RenderedFields | Table::TaskLogs => return None,
        })
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.before, &self.dag_ids, &self.except]
    }

    /// The table's name in the datastore.
    fn relation(&self) -> &'static str {
        if self.table == Table::Log { "event_log" } else { self.table.name() }
    }
}

/// Counts the old rows; none for a table of runs.
pub async fn count_old_rows(client: &impl GenericClient, old: &OldRows) -> Result<i64> {
    let Some(select) = old.select() else { return Ok(0) };
    fetch_one(client, &format!("SELECT count(*) FROM ({select}) old"), &old.parameters()).await
}

/// Removes at most `limit` old rows; returns how many.
pub async fn remove_old_rows(client: &impl GenericClient, old: &OldRows, limit: i64) -> Result<u64> {
    let Some(select) = old.select() else { return Ok(0) };
    let query = format!("DELETE FROM {} WHERE ctid = ANY (ARRAY({select} LIMIT $4))", old.relation());
    let [before, dag_ids, except] = old.parameters();
    Ok(client.execute(&query, &[before, dag_ids, except, &limit]).await?)
}

/// Removes the remains of old runs and versions: backfills that were completed before `before` and have no run any
/// more, triggers whose tasks have ended, and locks of environments that nothing refers to.
pub async fn remove_remains(client: &impl GenericClient, before: Timestamp) -> Result<()> {
    let backfills = "DELETE FROM backfill b WHERE b.completed_at < $1
                     AND NOT EXISTS (SELECT FROM dag_run r WHERE r.backfill_id = b.id)";
    client.execute(backfills, &[&before]).await?;
    let triggers = "
        DELETE FROM task_trigger t USING task_instance ti
        WHERE (t.dag_id, t.run_id, t.task_id, t.map_index) = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
          AND t.fired_at < $1 AND ti.state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed')";
    client.execute(triggers, &[&before]).await?;
    let environments = "DELETE FROM environment e WHERE e.created_at < $1
                        AND NOT EXISTS (SELECT FROM environment_choice c WHERE c.hash = e.hash)
                        AND NOT EXISTS (SELECT FROM dag_version v WHERE v.environment = e.hash)";
    client.execute(environments, &[&before]).await?;
    Ok(())
}

/// All queued and running runs.
pub async fn unfinished_runs(client: &impl GenericClient) -> Result<Vec<RunKey>> {
    fetch_all(client, "SELECT dag_id, run_id FROM dag_run WHERE state IN ('queued', 'running')", &[]).await
}

/// The tables of the history, whose size grows with each run.
const GROWING: [&str; 9] = [
    "dag_run",
    "task_instance",
    "task_try",
    "xcom",
    "rendered_task_instance_fields",
    "event_log",
    "asset_event",
    "dag_version",
    "task_state",
];
/// A table is written again, which blocks its readers meanwhile, only if at most this many bytes of it are in use:
/// 0.1 to 0.3 s here.
const MAX_REWRITTEN: i64 = 24 * 1024 * 1024;
/// Free space of less than this is left for new rows.
const MIN_FREED: i64 = 16 * 1024 * 1024;

/// Makes the space of removed rows usable for new ones, and returns it to the file system where that is quick: at the
/// end of a table's file, and for a table that is mostly empty. `client` must not be in a transaction.
pub async fn reclaim_space(client: &ClientWrapper) -> Result<()> {
    for table in GROWING {
        client.batch_execute(&format!("VACUUM (ANALYZE) {table}")).await?;
        let query = "
            SELECT pg_table_size(c.oid), (
                greatest(c.reltuples, 0) * (SELECT coalesce(sum(s.avg_width), 0) + 60 FROM pg_stats s
                                            WHERE s.schemaname = 'public' AND s.tablename = c.relname)
                -- Values that are stored apart, in chunks of 2 kB.
                + greatest(coalesce(t.reltuples, 0), 0) * 2100)::bigint
            FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = $1::text::regclass";
        let (size, used): (i64, i64) = fetch_one(client, query, &[&table]).await?;
        if used <= MAX_REWRITTEN && size - 2 * used >= MIN_FREED {
            // Gives up rather than make requests wait behind it.
            client.batch_execute("SET lock_timeout = '200ms'").await?;
            if let Err(error) = client.batch_execute(&format!("VACUUM FULL {table}")).await {
                tracing::info!("the free space of {table} stays for new rows: {error}");
            }
            client.batch_execute("RESET lock_timeout").await?;
        }
    }
    Ok(())
}
