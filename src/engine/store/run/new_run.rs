//! Creates runs of any type, with their task instances.

use crate::model::dag::{Structure, Task};
use crate::model::keys::{NOT_MAPPED, Position, RunKey};
use crate::model::state::RunType;
use crate::planner::graph::Graph;
use crate::schedule::timetable::{Interval, Partition};
use crate::store::Result;
use crate::store::events::{self, Event};
use crate::store::instance::planner_input;
use crate::store::instance_key::IN_LOOP;
use crate::store::rows::fetch_all;
use crate::store::run::deadlines;
use crate::store::transition::instance;
use deadpool_postgres::Transaction;
use futures_util::future::try_join3;
use jiff::Timestamp;
use leoflow_base::sys::random;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::LazyLock;
use tokio_postgres::types::{Json, ToSql};

/// SQL condition: the DAG `d` has fewer queued and running runs than the `max_active_runs` of its version `v`. Backfill
/// runs do not count.
pub(crate) const BELOW_MAX_ACTIVE_RUNS: &str = "
    EXISTS (SELECT FROM (SELECT coalesce((v.structure->>'max_active_runs')::bigint, 16) AS most) l
            WHERE most = 0
               OR (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'running'
                   AND r.backfill_id IS NULL)
                + (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'queued'
                   AND coalesce(r.backfill_id, 0) = 0) < most)";

/// A run to create.
#[derive(Debug)]
pub struct NewRun<'a> {
    pub key: RunKey,
    pub run_type: RunType,
    pub logical_date: Option<Timestamp>,
    pub interval: Option<Interval>,
    pub partition: Option<&'a Partition>,
    pub run_after: Timestamp,
    pub conf: &'a Map<String, Value>,
    pub note: Option<&'a str>,
    pub triggered_by: &'a str,
    pub user: Option<&'a str>,
    pub version_id: i64,
    /// Id of the backfill, and the position of the run in it.
    pub backfill: Option<(i64, i32)>,
}

/// The conf of an asset-triggered run.
static EMPTY_CONF: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl<'a> NewRun<'a> {
    /// A run that is triggered by updates of assets or of an asset partition.
    pub(crate) fn of_assets(
        dag_id: &str,
        version_id: i64,
        triggered_at: Timestamp,
        partition: Option<&'a Partition>,
    ) -> Self {
        let suffix = hex::encode(random::bytes::<4>());
        Self {
            key: RunKey {
                dag_id: dag_id.to_owned(),
                run_id: format!("asset_triggered__{}_{suffix}", isoformat(triggered_at)),
            },
            run_type: RunType::AssetTriggered,
            logical_date: None,
            interval: None,
            partition,
            run_after: triggered_at,
            conf: &EMPTY_CONF,
            note: None,
            triggered_by: "asset",
            user: None,
            version_id,
            backfill: None,
        }
    }
}

/// The current time, rounded to microseconds, the precision of Postgres. All dates that are compared with one another
/// come from this clock, because the clock of the machine that runs Postgres may differ.
pub fn now() -> Timestamp {
    Timestamp::now().round(jiff::Unit::Microsecond).unwrap_or_else(|_| Timestamp::now())
}

/// Formats a date like Python's `isoformat()`, which Airflow's run ids use.
pub fn isoformat(date: Timestamp) -> String {
    let seconds = date.strftime("%Y-%m-%dT%H:%M:%S");
    match date.subsec_microsecond() {
        0 => format!("{seconds}+00:00"),
        micros => format!("{seconds}.{micros:06}+00:00"),
    }
}

/// Maximum number of characters of a partition key in a run id.
const MAX_KEY_CHARS: usize = 100;

/// The id of a scheduled run, or of one in a backfill. It ends with the sanitized partition key, where Airflow adds random
/// letters.
pub(crate) fn id(run_type: RunType, run_after: Timestamp, partition: Option<&Partition>) -> String {
    let date = isoformat(run_after);
    match partition {
        None => format!("{run_type}__{date}"),
        Some(partition) => {
            let sanitize = |c: char| if c.is_ascii_alphanumeric() || "_.~:+-".contains(c) { c } else { '_' };
            let key: String = partition.key.chars().map(sanitize).take(MAX_KEY_CHARS).collect();
            format!("{run_type}__{date}__{key}")
        }
    }
}

/// Selects the tasks of a new or changed run that get instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskDates {
    /// The tasks whose own start and end dates include this logical date; all of them without a logical date.
    Include(Option<Timestamp>),
    /// All tasks: a backfill ignores their dates.
    Ignored,
}

impl TaskDates {
    /// `backfill_id` is the backfill of the run, if any.
    pub fn of_run(logical_date: Option<Timestamp>, backfill_id: Option<i64>) -> Self {
        if backfill_id.is_some() { Self::Ignored } else { Self::Include(logical_date) }
    }

    fn allow(self, task: &Task) -> bool {
        let Self::Include(Some(date)) = self else { return true };
        let parse_date = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        parse_date(&task.start_date).is_none_or(|start| start <= date)
            && parse_date(&task.end_date).is_none_or(|end| date <= end)
    }
}

/// Creates a run. Returns `false` if a run with this id or date exists.
pub async fn insert(transaction: &Transaction<'_>, run: &NewRun<'_>, structure: &Structure) -> Result<bool> {
    if !insert_row(transaction, run).await? {
        return Ok(false);
    }
    let task_dates = TaskDates::of_run(run.logical_date, run.backfill.map(|(id, _)| id));
    let new_instances = initial_instances(structure, graph_of(structure).as_ref(), &HashSet::new(), task_dates);
    deadlines::add(transaction, &run.key.dag_id, &[&run.key.run_id], (run.version_id, structure), now()).await?;
    // The statements are pipelined, since a thousand DAGs may each get a run.
    try_join3(
        instance::insert(transaction, &run.key.dag_id, &[&run.key.run_id], &new_instances),
        events::notify(transaction, &Event::Sweep),
        events::notify(transaction, &Event::Changed(run.key.clone())),
    )
    .await?;
    Ok(true)
}

/// Inserts the row of a run. Returns `false` if a run with this id or date exists.
async fn insert_row(transaction: &Transaction<'_>, run: &NewRun<'_>) -> Result<bool> {
    let query = "
        INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end,
                             run_after, conf, note, dag_version_id, triggered_by, triggering_user_name, backfill_id,
                             backfill_ordinal, partition_key, partition_date, queued_at)
        VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                -- A run with queued_at >= run_after counts as due, even if the clock is set back later.
                CASE WHEN $3 IN ('scheduled', 'asset_triggered') THEN greatest($17::timestamptz, $7::timestamptz)
                     ELSE $17 END)
        ON CONFLICT DO NOTHING";
    let (start, end) = run.interval.map(|interval| (interval.start, interval.end)).unzip();
    let (backfill, ordinal) = run.backfill.unzip();
    let partition = run.partition.map(|partition| (&partition.key, partition.date));
    let (partition_key, partition_date) =
        (partition.map(|partition| partition.0), partition.and_then(|partition| partition.1));
    let parameters: [&(dyn ToSql + Sync); 17] = [
        &run.key.dag_id,
        &run.key.run_id,
        &run.run_type.as_str(),
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
    Ok(transaction.execute(query, &parameters).await? > 0)
}

/// Creates the new runs of a backfill with one statement, since there may be thousands. Skips runs that already exist,
/// and returns the ids of the created runs.
pub(crate) async fn insert_all(
    transaction: &Transaction<'_>,
    runs: &[NewRun<'_>],
    structure: &Structure,
) -> Result<HashSet<String>> {
    let Some(first) = runs.first() else { return Ok(HashSet::new()) };
    let query = "
        INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end,
                             run_after, conf, dag_version_id, triggered_by, triggering_user_name, backfill_id,
                             backfill_ordinal, queued_at, partition_key, partition_date)
        SELECT $1, new.run_id, $2, 'queued', new.logical_date, new.starts, new.ends, new.run_after, $3, $4, $5, $6, $7,
               new.ordinal, $14::timestamptz, new.partition_key, new.partition_date
        FROM unnest($8::text[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
                    $13::integer[], $15::text[], $16::timestamptz[])
             AS new (run_id, logical_date, starts, ends, run_after, ordinal, partition_key, partition_date)
        ON CONFLICT DO NOTHING RETURNING run_id";
    let ids: Vec<&str> = runs.iter().map(|run| run.key.run_id.as_str()).collect();
    let dates: Vec<_> = runs.iter().map(|run| run.logical_date).collect();
    let starts: Vec<_> = runs.iter().map(|run| run.interval.map(|interval| interval.start)).collect();
    let ends: Vec<_> = runs.iter().map(|run| run.interval.map(|interval| interval.end)).collect();
    let run_after_dates: Vec<_> = runs.iter().map(|run| run.run_after).collect();
    let ordinals: Vec<_> = runs.iter().map(|run| run.backfill.map(|(_, ordinal)| ordinal)).collect();
    let backfill = first.backfill.map(|(id, _)| id);
    let partition_keys: Vec<_> = runs.iter().map(|run| run.partition.map(|partition| partition.key.as_str())).collect();
    let partition_dates: Vec<_> = runs.iter().map(|run| run.partition.and_then(|partition| partition.date)).collect();
    let parameters: [&(dyn ToSql + Sync); 16] = [
        &first.key.dag_id,
        &first.run_type.as_str(),
        &Json(first.conf),
        &first.version_id,
        &first.triggered_by,
        &first.user,
        &backfill,
        &ids,
        &dates,
        &starts,
        &ends,
        &run_after_dates,
        &ordinals,
        &now(),
        &partition_keys,
        &partition_dates,
    ];
    let created: HashSet<String> = fetch_all(transaction, query, &parameters).await?.into_iter().collect();
    let created_ids: Vec<&str> = created.iter().map(String::as_str).collect();
    let new_instances = initial_instances(structure, graph_of(structure).as_ref(), &HashSet::new(), TaskDates::Ignored);
    instance::insert(transaction, &first.key.dag_id, &created_ids, &new_instances).await?;
    deadlines::add(transaction, &first.key.dag_id, &created_ids, (first.version_id, structure), now()).await?;
    // One event for all runs, since displays reload the whole list.
    events::notify(transaction, &Event::Dags).await?;
    Ok(created)
}

/// Adds instances for the tasks of a run that have none. A mapped task of known length gets one per element.
pub(crate) async fn add_instances(
    client: &impl GenericClient,
    key: &RunKey,
    structure: &Structure,
    task_dates: TaskDates,
) -> Result<()> {
    let new_instances = missing(client, key, structure, task_dates).await?;
    instance::insert(client, &key.dag_id, &[&key.run_id], &new_instances).await
}

/// The instances that `add_instances` would add: their tasks and positions.
pub(crate) async fn missing<'a>(
    client: &impl GenericClient,
    key: &RunKey,
    structure: &'a Structure,
    task_dates: TaskDates,
) -> Result<Vec<(&'a Task, Position)>> {
    // A removed iteration begins again only if its loop does.
    let query = format!(
        "SELECT DISTINCT task_id, CASE WHEN {IN_LOOP} THEN map_index >> 16 END FROM task_instance
         WHERE dag_id = $1 AND run_id = $2 AND NOT ({IN_LOOP} AND state IS NOT DISTINCT FROM 'removed')"
    );
    let existing: Vec<(String, Option<i32>)> = fetch_all(client, &query, &[&key.dag_id, &key.run_id]).await?;
    let iteration = |stored: i32| Position::from_stored(stored << 16).iteration();
    let existing = existing.into_iter().map(|(task_id, stored)| (task_id, stored.and_then(iteration))).collect();
    let Some(graph) = graph_of(structure) else { return Ok(initial_instances(structure, None, &existing, task_dates)) };
    let graph = planner_input::unroll(client, key, &graph).await?.unwrap_or(graph);
    Ok(initial_instances(structure, Some(&graph), &existing, task_dates))
}

/// The graph of a DAG with groups or mapped tasks. Others need none to create their instances.
fn graph_of(structure: &Structure) -> Option<Graph> {
    let needs_graph = structure.tasks.iter().any(|task| task.mapped || task.group.is_some());
    needs_graph.then(|| Graph::new(structure.clone()))
}

/// The initial instances of a run, except those of `existing` tasks: their ids, and their iterations in a loop.
fn initial_instances<'a>(
    structure: &'a Structure,
    graph: Option<&Graph>,
    existing: &HashSet<(String, Option<i32>)>,
    task_dates: TaskDates,
) -> Vec<(&'a Task, Position)> {
    let mut rows: Vec<(&Task, Position)> = Vec::new();
    for task_index in 0..graph.map_or(structure.tasks.len(), Graph::len) {
        let task = &structure.tasks[graph.map_or(task_index, |graph| graph.index_in_structure(task_index))];
        let iteration = graph.and_then(|graph| graph.iteration(task_index));
        if existing.contains(&(task.task_id.clone(), iteration)) || !task_dates.allow(task) {
            continue;
        }
        let position = |map_index| Position::new(iteration, map_index);
        match graph.filter(|graph| graph.is_expandable(task_index)).map(|graph| graph.count(task_index, &|_| None)) {
            Some(Some(count @ 1..)) => {
                let indexes = (0..count).map(|index| i32::try_from(index).unwrap_or(i32::MAX));
                rows.extend(indexes.map(|index| (task, position(index))));
            }
            _ => rows.push((task, position(NOT_MAPPED))),
        }
    }
    rows
}
