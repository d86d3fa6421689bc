//! Facts about all DAGs together: tags, ids, run counts, unknown pools, warnings.

use crate::store::Result;
use crate::store::asset::asset_lists::CONFLICTS;
use crate::store::dag::dags::TIMETABLE_TYPE;
use crate::store::dag::next_runs;
use crate::store::list::field::list_fields;
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{fetch_all, fetch_optional, from_row};
use crate::store::run::new_run;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;

list_fields! {
    /// Fields of tags, for lists.
    TagField, key: [Name];
    Name = text("t.name"),
}

list_fields! {
    /// Fields of warnings, for lists.
    WarningField, key: [DagId, Kind, Message];
    DagId = text("w.dag_id"),
    Kind = text("w.kind"),
    Message = text("w.message"),
    At = time("w.at"),
}

/// The distinct tags of active DAGs.
pub async fn tags(client: &impl GenericClient, listing: Listing<TagField>) -> Result<ListPage<String>> {
    let from = "(SELECT DISTINCT jsonb_array_elements_text(v.structure->'tags') AS name
                 FROM dag d JOIN dag_version v ON v.id = d.current_version_id WHERE d.is_active) t";
    listing.fetch(client, &Source::new("t.name", from)).await
}

/// The ids of all DAGs, also of inactive ones.
pub async fn ids(client: &impl GenericClient) -> Result<Vec<String>> {
    fetch_all(client, "SELECT dag_id FROM dag", &[]).await
}

/// The ids of all DAGs, with the paths of their files.
pub async fn files(client: &impl GenericClient) -> Result<Vec<(String, String)>> {
    fetch_all(client, "SELECT dag_id, fileloc FROM dag ORDER BY dag_id", &[]).await
}

from_row! {
    /// A file of the workspace that defines DAGs or cannot be imported.
    #[derive(Debug)]
    pub struct FileFacts {
        pub relative_fileloc: String,
        pub dag_count: i64,
        pub last_parsed_at: Option<Timestamp>,
        /// Seconds.
        pub last_parse_duration: Option<f64>,
        pub import_error_count: i64,
    }
}

/// The files with active DAGs, and those that cannot be imported.
pub async fn files_of_workspace(client: &impl GenericClient) -> Result<Vec<FileFacts>> {
    let query = "
        SELECT coalesce(d.relative_fileloc, e.filename) AS relative_fileloc, coalesce(d.count, 0) AS dag_count,
               d.last_parsed_at, d.last_parse_duration, count(e.id) AS import_error_count
        FROM (SELECT fileloc, min(relative_fileloc) AS relative_fileloc, count(*) AS count,
                     max(last_parsed_at) AS last_parsed_at, max(last_parse_duration) AS last_parse_duration
              FROM dag WHERE is_active GROUP BY fileloc) d
        FULL JOIN import_error e ON e.filename = d.fileloc
        GROUP BY d.fileloc, d.relative_fileloc, e.filename, d.count, d.last_parsed_at, d.last_parse_duration
        ORDER BY 1";
    fetch_all(client, query, &[]).await
}

/// The ids of the DAGs that have queued or running runs, among these.
pub async fn with_unfinished_runs(client: &impl GenericClient, dag_ids: &[&str]) -> Result<HashSet<String>> {
    let query = "SELECT DISTINCT dag_id FROM dag_run WHERE state IN ('queued', 'running') AND dag_id = ANY ($1)";
    Ok(fetch_all(client, query, &[&dag_ids]).await?.into_iter().collect())
}

/// The classes of the active DAGs' timetables.
pub async fn timetable_types(client: &impl GenericClient) -> Result<Vec<String>> {
    let query = format!(
        "SELECT DISTINCT {TIMETABLE_TYPE} AS name FROM dag d JOIN dag_version v ON v.id = d.current_version_id
         WHERE d.is_active AND {TIMETABLE_TYPE} IS NOT NULL ORDER BY 1"
    );
    fetch_all(client, &query, &[]).await
}

/// The path of a DAG's file; `None` if there is no such DAG.
pub async fn file(client: &impl GenericClient, dag_id: &str) -> Result<Option<String>> {
    fetch_optional(client, "SELECT fileloc FROM dag WHERE dag_id = $1", &[&dag_id]).await
}

/// The ids of the DAGs that start runs by their schedules: active, not paused, and with a schedule of dates.
pub async fn unpaused_with_schedule(client: &tokio_postgres::Client) -> Result<Vec<String>> {
    let query = "
        SELECT d.dag_id FROM dag d JOIN dag_version v ON v.id = d.current_version_id
        WHERE d.is_active AND NOT d.is_paused
          AND coalesce(v.structure->'timetable'->>'kind', 'null') NOT IN ('null', 'asset')
        ORDER BY d.dag_id";
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

from_row! {
    /// The runs of a DAG by state.
    #[derive(Debug)]
    pub struct RunCounts {
        pub dag_id: String,
        pub display_name: String,
        /// A JSON object of the number of runs by state.
        pub by_state: Value = "counts",
    }
}

/// The number of runs in each state, for all DAGs or for the named ones. As in Airflow, a DAG without runs is left out.
pub async fn count_runs(client: &impl GenericClient, dag_ids: &[String]) -> Result<Vec<RunCounts>> {
    let query = "
        SELECT c.dag_id, coalesce(v.structure->>'dag_display_name', c.dag_id) AS display_name, c.counts
        FROM (SELECT dag_id, json_object_agg(state, count) AS counts
              FROM (SELECT dag_id, state, count(*) FROM dag_run
                    WHERE cardinality($1::text[]) = 0 OR dag_id = ANY ($1) GROUP BY dag_id, state) AS counted
              GROUP BY dag_id) c
        JOIN dag d USING (dag_id) LEFT JOIN dag_version v ON v.id = d.current_version_id
        ORDER BY c.dag_id";
    fetch_all(client, query, &[&dag_ids]).await
}

from_row! {
    /// A pool that a task of an active DAG uses, although it does not exist.
    #[derive(Debug, Serialize)]
    pub struct UnknownPool {
        pub dag_id: String,
        pub pool: String,
    }
}

/// The pools that do not exist, of all active DAGs or of one.
pub async fn unknown_pools(client: &impl GenericClient, dag_id: Option<&str>) -> Result<Vec<UnknownPool>> {
    let query = "
        SELECT DISTINCT d.dag_id, task->>'pool' AS pool
        FROM dag d JOIN dag_version v ON v.id = d.current_version_id,
             jsonb_array_elements(v.structure->'tasks') AS task
        WHERE d.is_active AND ($1::text IS NULL OR d.dag_id = $1) AND task->>'pool' <> 'default_pool'
          AND NOT EXISTS (SELECT FROM pool p WHERE p.name = task->>'pool')
        ORDER BY 1, 2";
    fetch_all(client, query, &[&dag_id]).await
}

/// The ids of unpaused DAGs whose schedule failed or makes no progress, of all DAGs or of one.
pub async fn stalled_schedules(client: &impl GenericClient, dag_id: Option<&str>) -> Result<Vec<String>> {
    let query = "SELECT dag_id FROM dag WHERE is_active AND NOT is_paused AND starts_with(schedule_key, $2)
                   AND ($1::text IS NULL OR dag_id = $1) ORDER BY dag_id";
    fetch_all(client, query, &[&dag_id, &next_runs::RETRY_PREFIX]).await
}

/// True from the import of a new version until the scheduler has computed the DAG's next run, a moment later.
pub async fn is_next_run_stale(client: &impl GenericClient, dag_id: &str) -> Result<bool> {
    let stale = next_runs::stale_dags(client, new_run::now()).await?;
    Ok(stale.iter().any(|dag| dag.dag_id == dag_id))
}

from_row! {
    /// A warning about an active DAG.
    #[derive(Debug)]
    pub struct Warning {
        pub dag_id: String,
        /// Airflow's name of the kind.
        pub kind: String,
        pub message: String,
        /// When the DAG's version was created.
        pub at: Timestamp,
    }
}

/// Warnings, with Airflow's texts: tasks whose pool does not exist, and assets that conflict with another asset of the
/// same name or URI.
pub async fn warnings(client: &impl GenericClient, listing: Listing<WarningField>) -> Result<ListPage<Warning>> {
    let conflicts = [("name", "uri"), ("uri", "name")].into_iter().zip(CONFLICTS).map(|((column, other), conflict)| {
        format!(
            "SELECT d.dag_id, 'asset conflict' AS kind,
                    format('Cannot activate asset Asset(name=\"%s\", uri=\"%s\", group=\"%s\"); {column} is already associated to %L',
                           a.name, a.uri, a.group_name, o.{other}) AS message, v.created_at AS at
             FROM dag d JOIN dag_version v ON v.id = d.current_version_id
             JOIN dag_asset r ON r.dag_id = d.dag_id AND r.kind = 'asset'
             JOIN asset a ON a.name = r.name AND a.uri = r.uri JOIN asset o ON {conflict}
             WHERE d.is_active"
        )
    });
    let conflicts: Vec<String> = conflicts.collect();
    let from = format!(
        "(SELECT d.dag_id, 'non-existent pool' AS kind,
                 format('Dag ''%s'' references non-existent pools: [''%s'']', d.dag_id, task->>'pool') AS message,
                 v.created_at AS at
          FROM dag d JOIN dag_version v ON v.id = d.current_version_id,
               jsonb_array_elements(v.structure->'tasks') AS task
          WHERE d.is_active AND task->>'pool' <> 'default_pool'
            AND NOT EXISTS (SELECT FROM pool p WHERE p.name = task->>'pool')
          UNION {} UNION {}) w",
        conflicts[0], conflicts[1]
    );
    listing.fetch(client, &Source::new("w.*", &from)).await
}
