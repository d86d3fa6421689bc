//! Task instances as the planner reads them, in the same transaction that applies the plan, with the decisions of
//! branches and the numbers of elements that tasks and groups are mapped over.

use crate::model::keys::{Position, RunKey};
use crate::model::state::TryState;
use crate::planner::graph::Graph;
use crate::planner::snapshot::{Decision, EndedTry, Instance, Outcome, Returned};
use crate::store::Result;
use crate::store::instance_key::{IN_LOOP, KEY, TRY};
use crate::store::rows::{fetch_all, get};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// SQL query for the instances of a run with their current tries. `$1` is the DAG id, `$2` the run id.
static INSTANCES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT ti.task_id, ti.map_index, ti.state, ti.try_number, ti.max_tries, ti.due_at,
                CASE WHEN ti.state = 'up_for_reschedule' AND ti.end_date IS NULL THEN ti.start_date END AS waits_since,
                t.state AS try_state, t.may_retry, t.end_date AS try_end, t.due_at AS try_due, t.skipped_tasks,
                t.loop_stops, t.has_asset_events
         FROM task_instance ti
         -- LATERAL with LIMIT makes Postgres use one index lookup per instance, whatever its statistics say.
         LEFT JOIN LATERAL (
             SELECT state, may_retry, end_date, due_at, skipped_tasks, loop_stops, asset_events IS NOT NULL AS has_asset_events
             FROM task_try t
             WHERE ti.state IN ('running', 'restarting') AND {} LIMIT 1) t ON true
         WHERE ti.dag_id = $1 AND ti.run_id = $2",
        TRY.same("t", "ti")
    )
});
/// `INSTANCES` for those that the agent has claimed and the scheduler has not settled.
static CLAIMED: LazyLock<String> =
    LazyLock::new(|| format!("{} AND ti.state IN ('running', 'restarting')", *INSTANCES));

/// Returns the graph of a run whose loops have several iterations; `None` if `graph` is that of the run.
pub(crate) async fn unroll(client: &impl GenericClient, key: &RunKey, graph: &Graph) -> Result<Option<Graph>> {
    let structure = &graph.structure;
    if !structure.has_loops() {
        return Ok(None);
    }
    let (_, looped) = structure.ids_outside_and_in_loops();
    let query = format!(
        "SELECT task_id, max(map_index) FROM task_instance
         WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND {IN_LOOP} AND state IS DISTINCT FROM 'removed'
         GROUP BY task_id"
    );
    let newest: Vec<(String, Position)> = fetch_all(client, &query, &[&key.dag_id, &key.run_id, &looped]).await?;
    let mut iterations: HashMap<usize, i32> = HashMap::new();
    for (task_id, position) in newest {
        let loop_group = graph.task_index(&task_id).and_then(|task_index| graph.loop_of(task_index));
        if let (Some(group), Some(iteration)) = (loop_group, position.iteration()) {
            let count = iterations.entry(group).or_default();
            *count = (*count).max(iteration + 1);
        }
    }
    let is_first = iterations.values().all(|count| *count == 1);
    Ok((!is_first).then(|| Graph::with_iterations(Arc::clone(structure), &iterations)))
}

/// Returns the instances of a run.
pub async fn instances(client: &impl GenericClient, key: &RunKey, graph: &Graph) -> Result<Vec<Instance>> {
    let rows = client.query(&INSTANCES, &[&key.dag_id, &key.run_id]).await?;
    rows.iter().map(|row| instance(row, graph)).collect()
}

/// Returns the instances that the agent has claimed and the scheduler has not settled. Only these change without a new
/// revision of the run.
pub(crate) async fn claimed_instances(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<Vec<Instance>> {
    let rows = client.query(&CLAIMED, &[&key.dag_id, &key.run_id]).await?;
    rows.iter().map(|row| instance(row, graph)).collect()
}

fn instance(row: &Row, graph: &Graph) -> Result<Instance> {
    let task_id: String = get(row, "task_id")?;
    let position: Position = get(row, "map_index")?;
    Ok(Instance {
        task_index: graph.index_in(&task_id, position.iteration()),
        task_id,
        position,
        state: get(row, "state")?,
        try_number: get(row, "try_number")?,
        max_tries: get(row, "max_tries")?,
        due_at: get(row, "due_at")?,
        waits_since: get(row, "waits_since")?,
        ended: ended_try(row)?,
    })
}

/// The end of the current try; `None` while it runs.
fn ended_try(row: &Row) -> Result<Option<EndedTry>> {
    let (Some(ended_at), Some(state)) = (get(row, "try_end")?, get(row, "try_state")?) else { return Ok(None) };
    let outcome = match state {
        TryState::Running => return Ok(None),
        TryState::Success => Outcome::Success,
        TryState::Skipped => Outcome::Skipped,
        TryState::Failed => Outcome::Failed { may_retry: row.get("may_retry"), due: row.get("try_due") },
        TryState::UpForReschedule => {
            Outcome::Rescheduled { due: row.get::<_, Option<Timestamp>>("try_due").unwrap_or(ended_at) }
        }
        TryState::Deferred => Outcome::Deferred { fired: row.get("try_due") },
        TryState::AwaitingInput => Outcome::AwaitingInput { answered: row.get("try_due") },
    };
    let skips = row.get::<_, Option<Vec<String>>>("skipped_tasks").unwrap_or_default();
    Ok(Some(EndedTry {
        outcome,
        at: ended_at,
        loop_stops: row.get("loop_stops"),
        skips,
        has_asset_events: row.get("has_asset_events"),
    }))
}

/// Reads the decisions of branches and short circuits, by task index and map index.
pub async fn decisions(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<HashMap<(usize, i32), Decision>> {
    let mut decisions = HashMap::new();
    if !graph.has_decisions {
        return Ok(decisions);
    }
    let query = "SELECT task_id, map_index, value FROM xcom
                 WHERE dag_id = $1 AND run_id = $2 AND key = 'skipmixin_key'";
    for row in client.query(query, &[&key.dag_id, &key.run_id]).await? {
        let value: Value = row.get("value");
        let ids = |name: &str| -> Option<HashSet<String>> {
            let list = value.get(name)?.as_array()?;
            Some(list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect())
        };
        let decision = ids("followed").map(Decision::Followed).or_else(|| ids("skipped").map(Decision::Skipped));
        let position: Position = row.get("map_index");
        let task_index = graph.index_in(row.get("task_id"), position.iteration());
        if let (Some(task_index), Some(decision)) = (task_index, decision) {
            decisions.insert((task_index, position.map_index()), decision);
        }
    }
    Ok(decisions)
}

/// Returns the lengths of the lists that other tasks are mapped over, by the index of the task that has returned the list.
/// Removed instances do not count.
pub async fn lengths(client: &impl GenericClient, key: &RunKey, graph: &Graph) -> Result<HashMap<usize, Returned>> {
    let sources = graph.length_sources();
    let mut lengths = HashMap::new();
    if sources.is_empty() {
        return Ok(lengths);
    }
    let query = format!(
        "
        SELECT task_id, map_index,
               -- An XCom that its task has pushed explicitly, or a user has set, has no reported length.
               coalesce(mapped_length, CASE json_typeof(value)
                   WHEN 'array' THEN json_array_length(value)
                   WHEN 'object' THEN CASE WHEN value->>'__classname__' = 'builtins.tuple'
                                                AND json_typeof(value->'__data__') = 'array'
                                           THEN json_array_length(value->'__data__')
                                           ELSE (SELECT count(*)::integer FROM json_object_keys(value)) END
               END) AS length
        FROM xcom JOIN task_instance ti USING ({KEY})
        WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND key = 'return_value'
          AND (map_index = -1 OR ti.state IS DISTINCT FROM 'removed')"
    );
    let parameters: [&(dyn ToSql + Sync); 3] = [&key.dag_id, &key.run_id, &sources];
    for (task_id, position, length) in fetch_all::<(String, Position, Option<i32>)>(client, &query, &parameters).await?
    {
        let Some(task_index) = graph.index_in(&task_id, position.iteration()) else { continue };
        if position.map_index() >= 0 {
            let mut indexes = match lengths.remove(&task_index) {
                Some(Returned::Instances(indexes)) => indexes,
                _ => HashSet::new(),
            };
            indexes.insert(position.map_index());
            lengths.insert(task_index, Returned::Instances(indexes));
        } else if let Some(length) = length {
            lengths.insert(task_index, Returned::Elements(usize::try_from(length).unwrap_or(0)));
        }
    }
    Ok(lengths)
}
