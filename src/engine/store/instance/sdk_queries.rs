//! Queries for runs and task instances by dates, ids and states. Running tasks send them through functions of Airflow's
//! SDK, or poll them as sensors, which the scheduler does for some.

use crate::model::keys::{Position, RunKey};
use crate::store::dag::dags;
use crate::store::instance_key::map_index_of;
use crate::store::rows::{fetch_one, fetch_optional, from_row};
use crate::store::{Result, StoreError};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde::Deserialize;
use serde_json::Value;
use std::sync::LazyLock;
use tokio_postgres::types::ToSql;

/// Selects runs; a field that is `None` or empty does not filter.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdkRunFilter {
    pub dag_id: String,
    pub run_ids: Option<Vec<String>>,
    pub dates: Option<Vec<Timestamp>>,
    pub states: Option<Vec<String>>,
}

/// Selects task instances; a field that is `None` or empty does not filter.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdkInstanceFilter {
    pub dag_id: String,
    pub run_ids: Option<Vec<String>>,
    pub dates: Option<Vec<Timestamp>>,
    pub task_ids: Option<Vec<String>>,
    pub group_id: Option<String>,
    pub map_index: Option<i32>,
    /// The text `null` means no state.
    pub states: Option<Vec<String>>,
}

/// Converts an empty list to `None`, since it does not filter.
fn non_empty<T>(list: &Option<Vec<T>>) -> Option<&[T]> {
    list.as_deref().filter(|list| !list.is_empty())
}

/// SQL expression of the run `r` as JSON, with Airflow's field names.
const RUN: &str = "json_build_object(
    'dag_id', r.dag_id, 'run_id', r.run_id, 'logical_date', r.logical_date, 'data_interval_start', r.data_interval_start,
    'data_interval_end', r.data_interval_end, 'run_after', r.run_after, 'start_date', r.start_date, 'end_date', r.end_date,
    'run_type', r.run_type, 'state', r.state, 'conf', r.conf, 'triggering_user_name', r.triggering_user_name,
    'note', r.note, 'partition_key', r.partition_key, 'partition_date', r.partition_date)";

/// A run as JSON, with Airflow's field names.
pub async fn run(client: &impl GenericClient, key: &RunKey) -> Result<Option<Value>> {
    let query = format!("SELECT {RUN} FROM dag_run r WHERE dag_id = $1 AND run_id = $2");
    fetch_optional(client, &query, &[&key.dag_id, &key.run_id]).await
}

/// The last run with a logical date before `before`, as JSON; `state` restricts it to runs in that state.
pub async fn previous_run(
    client: &impl GenericClient,
    dag_id: &str,
    before: Timestamp,
    state: Option<&str>,
) -> Result<Option<Value>> {
    let query = format!(
        "SELECT {RUN} FROM dag_run r WHERE dag_id = $1 AND logical_date < $2 AND ($3::text IS NULL OR state = $3)
         ORDER BY logical_date DESC LIMIT 1"
    );
    fetch_optional(client, &query, &[&dag_id, &before, &state]).await
}

pub async fn count_runs(client: &impl GenericClient, runs: &SdkRunFilter) -> Result<i64> {
    let query = "
        SELECT count(*) FROM dag_run WHERE dag_id = $1 AND ($2::text[] IS NULL OR run_id = ANY ($2))
           AND ($3::timestamptz[] IS NULL OR logical_date = ANY ($3)) AND ($4::text[] IS NULL OR state = ANY ($4))";
    let (run_ids, dates, states) = (non_empty(&runs.run_ids), non_empty(&runs.dates), non_empty(&runs.states));
    fetch_one(client, query, &[&runs.dag_id, &run_ids, &dates, &states]).await
}

/// SQL condition: an instance outside of loops, or of the newest iteration that has not been removed. As in Airflow, the
/// SDK sees only these.
const NEWEST: &str = "(ti.map_index >= -1 OR ti.state IS DISTINCT FROM 'removed' AND (ti.map_index >> 16) = (
    SELECT max(o.map_index >> 16) FROM task_instance o
    WHERE (o.dag_id, o.run_id, o.task_id) = (ti.dag_id, ti.run_id, ti.task_id) AND o.state IS DISTINCT FROM 'removed'))";

/// SQL tables and conditions for an `SdkInstanceFilter`, except its states.
static MATCHING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
    FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
    WHERE {NEWEST} AND ti.dag_id = $1 AND ($2::text[] IS NULL OR ti.run_id = ANY ($2))
      AND ($3::timestamptz[] IS NULL OR r.logical_date = ANY ($3)) AND ($4::text[] IS NULL OR ti.task_id = ANY ($4))
      AND ($5::integer IS NULL OR {} = $5)",
        map_index_of("ti.map_index")
    )
});

/// Counts task instances. With `task_ids` and `group_id`, only the named tasks in the group count.
pub async fn count_instances(client: &impl GenericClient, filter: &SdkInstanceFilter) -> Result<i64> {
    let mut tasks = filter.task_ids.clone().filter(|ids| !ids.is_empty());
    if let Some(group) = &filter.group_id {
        let in_group = group_tasks(client, &filter.dag_id, group).await?;
        tasks = Some(match tasks {
            Some(tasks) => tasks.into_iter().filter(|id| in_group.contains(id)).collect(),
            None => in_group,
        });
    }
    let matching = &*MATCHING;
    let query = format!("SELECT count(*) {matching} AND ($6::text[] IS NULL OR coalesce(ti.state, 'null') = ANY ($6))");
    let (run_ids, dates, states) = (non_empty(&filter.run_ids), non_empty(&filter.dates), non_empty(&filter.states));
    let parameters: [&(dyn ToSql + Sync); 6] = [&filter.dag_id, &run_ids, &dates, &tasks, &filter.map_index, &states];
    fetch_one(client, &query, &parameters).await
}

/// Returns a JSON object of states by run id and task id; for a mapped instance, `_` and its map index follow the task
/// id. The filter's `states` are ignored.
pub async fn states(client: &impl GenericClient, filter: &SdkInstanceFilter) -> Result<Value> {
    let mut tasks = filter.task_ids.clone().filter(|ids| !ids.is_empty());
    if let Some(group) = &filter.group_id {
        // Unlike in `count_instances`, the tasks of the group are added to the named ones.
        tasks.get_or_insert_default().extend(group_tasks(client, &filter.dag_id, group).await?);
    }
    let query = format!(
        "SELECT coalesce(json_object_agg(run_id, states), '{{}}') FROM (
            SELECT ti.run_id, json_object_agg(CASE WHEN {index} < 0 THEN ti.task_id
                                                   ELSE ti.task_id || '_' || {index} END, ti.state) AS states
            {matching} GROUP BY ti.run_id) by_run",
        index = map_index_of("ti.map_index"),
        matching = *MATCHING
    );
    let (run_ids, dates) = (non_empty(&filter.run_ids), non_empty(&filter.dates));
    fetch_one(client, &query, &[&filter.dag_id, &run_ids, &dates, &tasks, &filter.map_index]).await
}

/// The tasks of a group and its nested groups. Fails with `NotFound` if there is no such group.
async fn group_tasks(client: &impl GenericClient, dag_id: &str, group: &str) -> Result<Vec<String>> {
    let structure = dags::get(client, dag_id).await?.structure;
    if !structure.groups.iter().any(|other| other.group_id == group) {
        return Err(StoreError::NotFound { what: "task group", id: group.to_owned() });
    }
    Ok(structure.tasks_of_group(group))
}

/// The finished task instances of a run as JSON, with Airflow's field names.
pub async fn breadcrumbs(client: &impl GenericClient, key: &RunKey) -> Result<Value> {
    let query = format!(
        "SELECT coalesce(json_agg(json_build_object(
            'task_id', task_id, 'map_index', {}, 'state', state, 'operator', operator,
            'duration', extract(epoch FROM end_date - start_date)) ORDER BY task_id, map_index), '[]')
         FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed')",
        map_index_of("map_index")
    );
    fetch_one(client, &query, &[&key.dag_id, &key.run_id]).await
}

/// Selects an instance of a task in the runs before `logical_date`; a field that is `None` does not filter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousInstance {
    pub dag_id: String,
    pub task_id: String,
    pub map_index: i32,
    pub iteration: Option<i32>,
    pub logical_date: Option<Timestamp>,
    pub state: Option<String>,
}

/// Returns the matching instance of the newest run by logical date, before `logical_date` if that is set, as JSON.
pub async fn previous_instance(client: &impl GenericClient, filter: &PreviousInstance) -> Result<Option<Value>> {
    let query = "
        SELECT json_build_object('task_id', ti.task_id, 'dag_id', ti.dag_id, 'run_id', ti.run_id,
            'logical_date', r.logical_date, 'start_date', ti.start_date, 'end_date', ti.end_date, 'state', ti.state,
            'try_number', ti.try_number, 'map_index', $6::integer,
            'duration', extract(epoch FROM ti.end_date - ti.start_date))
        FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
        WHERE ti.dag_id = $1 AND ti.task_id = $2 AND ti.map_index = $3
          AND ($4::timestamptz IS NULL OR r.logical_date < $4) AND ($5::text IS NULL OR ti.state = $5)
        ORDER BY r.logical_date DESC NULLS FIRST LIMIT 1";
    let PreviousInstance { dag_id, task_id, map_index, iteration, logical_date, state } = filter;
    let Some(position) = Position::checked(*iteration, *map_index) else { return Ok(None) };
    fetch_optional(client, query, &[dag_id, task_id, &position, logical_date, state, map_index]).await
}

/// The objects to count.
#[derive(Debug)]
pub enum CountTarget {
    Runs,
    /// The instances of these tasks.
    Tasks(Vec<String>),
    /// A task group. It counts once per run in which all of its instances have one of the states.
    Group(String),
}

/// Counts the objects that have one of the states, in the runs with these logical dates.
pub async fn count(
    client: &impl GenericClient,
    dag_id: &str,
    target: &CountTarget,
    dates: &[Timestamp],
    states: &[String],
) -> Result<i64> {
    match target {
        CountTarget::Runs => {
            let query =
                "SELECT count(*) FROM dag_run WHERE dag_id = $1 AND logical_date = ANY ($2) AND state = ANY ($3)";
            fetch_one(client, query, &[&dag_id, &dates, &states]).await
        }
        CountTarget::Tasks(task_ids) => {
            let query = format!(
                "SELECT count(*) FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                 WHERE ti.dag_id = $1 AND r.logical_date = ANY ($2) AND ti.state = ANY ($3) AND ti.task_id = ANY ($4)
                   AND {NEWEST}"
            );
            fetch_one(client, &query, &[&dag_id, &dates, &states, &task_ids]).await
        }
        CountTarget::Group(group) => {
            let structure = dags::get(client, dag_id).await?.structure;
            if !structure.groups.iter().any(|other| other.group_id == *group) {
                // Without this error, the sensor would wait forever.
                return Err(StoreError::NotFound { what: "task group", id: format!("{group} in DAG {dag_id}") });
            }
            let group_tasks = structure.tasks_of_group(group);
            let query = format!(
                "SELECT count(*) FROM (
                    SELECT r.run_id FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                    WHERE ti.dag_id = $1 AND r.logical_date = ANY ($2) AND ti.task_id = ANY ($4) AND {NEWEST}
                    GROUP BY r.run_id HAVING bool_and(coalesce(ti.state = ANY ($3), false))) whole"
            );
            fetch_one(client, &query, &[&dag_id, &dates, &states, &group_tasks]).await
        }
    }
}

from_row! {
    /// The dates of a successful run.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Dates {
        pub data_interval_start: Option<Timestamp>,
        pub data_interval_end: Option<Timestamp>,
        pub start_date: Option<Timestamp>,
        pub end_date: Option<Timestamp>,
    }
}

/// Dates of the last successful run of the DAG before this run, by logical date.
pub async fn previous_success(client: &impl GenericClient, run: &RunKey) -> Result<Option<Dates>> {
    let query = "
        SELECT p.data_interval_start, p.data_interval_end, p.start_date, p.end_date
        FROM dag_run r JOIN dag_run p ON p.dag_id = r.dag_id AND p.state = 'success' AND p.logical_date < r.logical_date
        WHERE r.dag_id = $1 AND r.run_id = $2 ORDER BY p.logical_date DESC LIMIT 1";
    fetch_optional(client, query, &[&run.dag_id, &run.run_id]).await
}
