//! Making runs: each with its task instances, of any kind.

use super::StoreError;
use super::events::{self, Event};
use super::instances;
use crate::engine::dag::{Structure, Task};
use crate::engine::keys::RunKey;
use crate::engine::planner::graph::Graph;
use crate::engine::schedule::timetable::{Interval, Partition};
use crate::postgres::GenericClient;
use crate::sys::random;
use deadpool_postgres::Transaction;
use futures_util::future::try_join3;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::LazyLock;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

/// In SQL, whether the DAG `d` may have one run more, by its version `v`; runs of backfills do not count.
pub const MAY_HAVE_ONE_MORE: &str = "
    EXISTS (SELECT FROM (SELECT coalesce((v.structure->>'max_active_runs')::bigint, 16) AS most) l
            WHERE most = 0
               OR (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'running'
                   AND r.backfill_id IS NULL)
                + (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'queued'
                   AND coalesce(r.backfill_id, 0) = 0) < most)";

/// A run that is to be.
#[derive(Debug)]
pub struct NewRun<'a> {
    pub key: RunKey,
    pub run_type: &'a str,
    pub logical_date: Option<Timestamp>,
    pub interval: Option<Interval>,
    pub partition: Option<&'a Partition>,
    pub run_after: Timestamp,
    pub conf: &'a Map<String, Value>,
    pub note: Option<&'a str>,
    pub triggered_by: &'a str,
    pub user: Option<&'a str>,
    pub version_id: i64,
    /// The backfill that it is of, and its position in it.
    pub backfill: Option<(i64, i32)>,
}

/// The conf of a run that nobody gave any.
static NO_CONF: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl<'a> NewRun<'a> {
    /// One that comes of updates of assets, of all of them or of one partition, at this moment.
    pub fn of_assets(dag_id: &str, version_id: i64, at: Timestamp, partition: Option<&'a Partition>) -> Self {
        let suffix = hex::encode(random::bytes::<4>());
        Self {
            key: RunKey { dag_id: dag_id.to_owned(), run_id: format!("asset_triggered__{}_{suffix}", isoformat(at)) },
            run_type: "asset_triggered",
            logical_date: None,
            interval: None,
            partition,
            run_after: at,
            conf: &NO_CONF,
            note: None,
            triggered_by: "asset",
            user: None,
            version_id,
            backfill: None,
        }
    }
}

/// The moment, in microseconds, which is what Postgres keeps. Every date that is compared with another is of this clock:
/// that of the datastore's machine may be another.
pub fn now() -> Timestamp {
    Timestamp::now().round(jiff::Unit::Microsecond).unwrap_or_else(|_| Timestamp::now())
}

/// As Python's `isoformat()` has it, because Airflow's run ids do.
pub fn isoformat(at: Timestamp) -> String {
    let seconds = at.strftime("%Y-%m-%dT%H:%M:%S");
    match at.subsec_microsecond() {
        0 => format!("{seconds}+00:00"),
        micros => format!("{seconds}.{micros:06}+00:00"),
    }
}

/// Makes it. `false` when there is a run of that id or that date already.
pub async fn insert(
    transaction: &Transaction<'_>,
    run: &NewRun<'_>,
    structure: &Structure,
) -> Result<bool, StoreError> {
    let query = "
        INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end,
                             run_after, conf, note, dag_version_id, triggered_by, triggering_user_name, backfill_id,
                             backfill_ordinal, partition_key, partition_date, queued_at)
        VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                -- What its schedule or its assets make is due, also where another clock says when.
                CASE WHEN $3 IN ('scheduled', 'asset_triggered') THEN greatest($17::timestamptz, $7::timestamptz)
                     ELSE $17 END)
        ON CONFLICT DO NOTHING";
    let (start, end) = run.interval.map(|interval| (interval.start, interval.end)).unzip();
    let (backfill, ordinal) = run.backfill.unzip();
    let partition = run.partition.map(|partition| (&partition.key, partition.date));
    let (partition_key, partition_date) = (partition.map(|one| one.0), partition.and_then(|one| one.1));
    let parameters: [&(dyn ToSql + Sync); 17] = [
        &run.key.dag_id,
        &run.key.run_id,
        &run.run_type,
        &run.logical_date,
        &start,
        &end,
        &run.run_after,
        &Json(run.conf),
        &run.note,
        &run.version_id,
        &run.triggered_by,
        &run.user,
        &backfill,
        &ordinal,
        &partition_key,
        &partition_date,
        &now(),
    ];
    if transaction.execute(query, &parameters).await? == 0 {
        return Ok(false);
    }
    let new = initial(structure, &HashSet::new(), run.logical_date, run.backfill.is_some());
    // On their way together: there may be a run of each of a thousand DAGs.
    try_join3(
        instances::insert(transaction, &run.key.dag_id, &[&run.key.run_id], &new),
        async { Ok(events::notify(transaction, &Event::Sweep).await?) },
        async { Ok(events::notify(transaction, &Event::Changed(run.key.clone())).await?) },
    )
    .await?;
    Ok(true)
}

/// Makes the runs of a backfill that are new, all at once: there may be thousands. Returns the ids of those that
/// were made; there was one of that id already where one is missing.
pub async fn insert_all(
    transaction: &Transaction<'_>,
    runs: &[NewRun<'_>],
    structure: &Structure,
) -> Result<HashSet<String>, StoreError> {
    let Some(first) = runs.first() else { return Ok(HashSet::new()) };
    let query = "
        INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end,
                             run_after, conf, dag_version_id, triggered_by, triggering_user_name, backfill_id,
                             backfill_ordinal, queued_at)
        SELECT $1, new.run_id, $2, 'queued', new.logical_date, new.starts, new.ends, new.run_after, $3, $4, $5, $6, $7,
               new.ordinal, $14::timestamptz
        FROM unnest($8::text[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
                    $13::integer[]) AS new (run_id, logical_date, starts, ends, run_after, ordinal)
        ON CONFLICT DO NOTHING RETURNING run_id";
    let ids: Vec<&str> = runs.iter().map(|run| run.key.run_id.as_str()).collect();
    let dates: Vec<_> = runs.iter().map(|run| run.logical_date).collect();
    let starts: Vec<_> = runs.iter().map(|run| run.interval.map(|interval| interval.start)).collect();
    let ends: Vec<_> = runs.iter().map(|run| run.interval.map(|interval| interval.end)).collect();
    let afters: Vec<_> = runs.iter().map(|run| run.run_after).collect();
    let ordinals: Vec<_> = runs.iter().map(|run| run.backfill.map(|(_, ordinal)| ordinal)).collect();
    let backfill = first.backfill.map(|(id, _)| id);
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &first.key.dag_id,
        &first.run_type,
        &Json(first.conf),
        &first.version_id,
        &first.triggered_by,
        &first.user,
        &backfill,
        &ids,
        &dates,
        &starts,
        &ends,
        &afters,
        &ordinals,
        &now(),
    ];
    let rows = transaction.query(query, &parameters).await?;
    let made: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let made_ids: Vec<&str> = made.iter().map(String::as_str).collect();
    let new = initial(structure, &HashSet::new(), None, true);
    instances::insert(transaction, &first.key.dag_id, &made_ids, &new).await?;
    // Whoever shows one of them is told of all.
    events::notify(transaction, &Event::Dags).await?;
    Ok(made)
}

/// An instance for each task that has none; several where it is known how many they are.
pub async fn add_instances(
    client: &impl GenericClient,
    key: &RunKey,
    structure: &Structure,
    logical_date: Option<Timestamp>,
    is_backfill: bool,
) -> Result<(), StoreError> {
    let rows = with_instances(client, key).await?;
    let there = rows.iter().map(|row| row.get(0)).collect();
    let new = initial(structure, &there, logical_date, is_backfill);
    instances::insert(client, &key.dag_id, &[&key.run_id], &new).await
}

/// The tasks that these would be of.
pub async fn missing(
    client: &impl GenericClient,
    key: &RunKey,
    structure: &Structure,
    logical_date: Option<Timestamp>,
    is_backfill: bool,
) -> Result<Vec<String>, StoreError> {
    let rows = with_instances(client, key).await?;
    let there = rows.iter().map(|row| row.get(0)).collect();
    let new = initial(structure, &there, logical_date, is_backfill);
    Ok(new.into_iter().map(|(task, _)| task.task_id.clone()).collect())
}

async fn with_instances(client: &impl GenericClient, key: &RunKey) -> Result<Vec<Row>, StoreError> {
    let query = "SELECT DISTINCT task_id FROM task_instance WHERE dag_id = $1 AND run_id = $2";
    Ok(client.query(query, &[&key.dag_id, &key.run_id]).await?)
}

/// The instances that a run begins with, less those of tasks that are there.
fn initial<'a>(
    structure: &'a Structure,
    there: &HashSet<&str>,
    logical_date: Option<Timestamp>,
    is_backfill: bool,
) -> Vec<(&'a Task, i32)> {
    // Only what is mapped needs the arrows.
    let mapped = structure.tasks.iter().any(|task| task.mapped || task.group.is_some());
    let graph = mapped.then(|| Graph::new(structure.clone()));
    let mut new: Vec<(&Task, i32)> = Vec::new();
    for (task_index, task) in structure.tasks.iter().enumerate() {
        if there.contains(task.task_id.as_str()) || !(is_backfill || is_in_time(task, logical_date)) {
            continue;
        }
        match graph
            .as_ref()
            .filter(|graph| graph.is_expandable(task_index))
            .map(|graph| graph.count(task_index, &|_| None))
        {
            Some(Some(count @ 1..)) => {
                new.extend((0..count).map(|index| (task, i32::try_from(index).unwrap_or(i32::MAX))));
            }
            _ => new.push((task, -1)),
        }
    }
    new
}

/// A task may begin later than its DAG, and end earlier.
fn is_in_time(task: &Task, logical_date: Option<Timestamp>) -> bool {
    let Some(date) = logical_date else { return true };
    let moment = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    moment(&task.start_date).is_none_or(|start| start <= date) && moment(&task.end_date).is_none_or(|end| date <= end)
}
