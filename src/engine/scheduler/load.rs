//! What the planner has to know of a run, read in the transaction that applies what it says.

use crate::engine::dag::Structure;
use crate::engine::keys::RunKey;
use crate::engine::planner::graph::Graph;
use crate::engine::planner::plan::{Decision, EndedTry, Instance, Outcome};
use crate::engine::state::{TaskState, TryState};
use crate::engine::store::StoreError;
use crate::postgres::GenericClient;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// Graphs of versions in use; a version never changes.
#[derive(Default)]
pub struct Graphs(HashMap<i64, Rc<Graph>>);

/// Versions at once; a laptop has few DAGs that run.
const MOST_GRAPHS: usize = 64;

impl Graphs {
    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Graph>, StoreError> {
        if let Some(graph) = self.0.get(&id) {
            return Ok(graph.clone());
        }
        let row = client.query_one("SELECT structure FROM dag_version WHERE id = $1", &[&id]).await?;
        let Json(structure): Json<Structure> = row.get(0);
        if self.0.len() >= MOST_GRAPHS {
            self.0.clear();
        }
        let graph = Rc::new(Graph::new(structure));
        self.0.insert(id, graph.clone());
        Ok(graph)
    }
}

/// The columns of an instance, and of the try that it is in; `WHERE` for a run of two parameters.
macro_rules! instances_where {
    ($states:literal) => {
        concat!(
            "SELECT ti.task_id, ti.map_index, ti.state, ti.try_number, ti.max_tries, ti.due_at,
                    CASE WHEN ti.state = 'up_for_reschedule' AND ti.end_date IS NULL THEN ti.start_date END AS waits_since,
                    t.state AS try_state, t.may_retry, t.end_date AS try_end, t.due_at AS try_due, t.skipped_tasks
             FROM task_instance ti
             -- One look into the key for each, whatever statistics there are.
             LEFT JOIN LATERAL (
                 SELECT state, may_retry, end_date, due_at, skipped_tasks FROM task_try t
                 WHERE ti.state IN ('running', 'restarting')
                   AND (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number)
                       = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number) LIMIT 1) t ON true
             WHERE ti.dag_id = $1 AND ti.run_id = $2 AND ",
            $states
        )
    };
}

/// The instances of a run with their names, in one order.
pub async fn instances(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<(Vec<(String, i32)>, Vec<Instance>), StoreError> {
    let rows = client.query(instances_where!("true"), &[&key.dag_id, &key.run_id]).await?;
    Ok(rows.iter().map(|row| instance(row, graph)).unzip())
}

/// Those that the agent has taken and the scheduler has not settled: all that changes without the run's revision.
pub async fn under_way(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<Vec<((String, i32), Instance)>, StoreError> {
    let query = instances_where!("ti.state IN ('running', 'restarting')");
    let rows = client.query(query, &[&key.dag_id, &key.run_id]).await?;
    Ok(rows.iter().map(|row| instance(row, graph)).collect())
}

fn instance(row: &Row, graph: &Graph) -> ((String, i32), Instance) {
    let (task_id, map_index): (String, i32) = (row.get(0), row.get(1));
    let instance = Instance {
        task_index: graph.task_index(&task_id),
        map_index,
        state: row.get::<_, Option<&str>>(2).and_then(TaskState::parse),
        try_number: row.get(3),
        max_tries: row.get(4),
        due_at: row.get(5),
        waits_since: row.get(6),
        ended: ended(row),
    };
    ((task_id, map_index), instance)
}

fn ended(row: &Row) -> Option<EndedTry> {
    let at: Timestamp = row.get::<_, Option<Timestamp>>("try_end")?;
    let outcome = match TryState::parse(row.get::<_, Option<&str>>("try_state")?)? {
        TryState::Running => return None,
        TryState::Success => Outcome::Success,
        TryState::Skipped => Outcome::Skipped,
        TryState::Failed => Outcome::Failed { may_retry: row.get("may_retry"), due: row.get("try_due") },
        TryState::UpForReschedule => {
            Outcome::Rescheduled { due: row.get::<_, Option<Timestamp>>("try_due").unwrap_or(at) }
        }
        TryState::Deferred => Outcome::Deferred { fired: row.get("try_due") },
        TryState::AwaitingInput => Outcome::AwaitingInput { answered: row.get("try_due") },
    };
    Some(EndedTry { outcome, at, skips: row.get::<_, Option<Vec<String>>>("skipped_tasks").unwrap_or_default() })
}

/// What branches and short circuits have decided.
pub async fn decisions(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<HashMap<(usize, i32), Decision>, StoreError> {
    let mut found = HashMap::new();
    if !graph.has_decisions {
        return Ok(found);
    }
    let query = "SELECT task_id, map_index, value FROM xcom
                 WHERE dag_id = $1 AND run_id = $2 AND key = 'skipmixin_key'";
    for row in client.query(query, &[&key.dag_id, &key.run_id]).await? {
        let Json(value): Json<Value> = row.get(2);
        let ids = |name: &str| -> Option<HashSet<String>> {
            let list = value.get(name)?.as_array()?;
            Some(list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect())
        };
        let decision = ids("followed").map(Decision::Followed).or_else(|| ids("skipped").map(Decision::Skipped));
        if let (Some(task_index), Some(decision)) = (graph.task_index(row.get(0)), decision) {
            found.insert((task_index, row.get(1)), decision);
        }
    }
    Ok(found)
}

/// The run that a task's past is in.
struct Before {
    run_id: String,
    logical_date: Timestamp,
}

/// Tasks that may not begin because of how the run before this one went.
pub async fn held_by_past(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
    logical_date: Option<Timestamp>,
) -> Result<HashSet<usize>, StoreError> {
    let mut held = HashSet::new();
    let (true, Some(date)) = (graph.has_past, logical_date) else { return Ok(held) };
    let catchup = graph.structure.catchup;
    let Some(before) = run_before(client, key, date, catchup).await? else { return Ok(held) };
    // An instance that a shorter list has removed says nothing; a task that has no other went well.
    let query = "
        SELECT task_id, bool_and(coalesce(state IN ('success', 'skipped', 'removed'), false)) FROM task_instance
        WHERE dag_id = $1 AND run_id = $2 GROUP BY task_id";
    let rows = client.query(query, &[&key.dag_id, &before.run_id]).await?;
    let went_well: HashMap<String, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for task_index in 0..graph.len() {
        let task = graph.task(task_index);
        if !task.depends_on_past {
            continue;
        }
        let start = task.start_date.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        if catchup && start.is_some_and(|start| before.logical_date < start) {
            continue;
        }
        let own = match went_well.get(&task.task_id) {
            Some(well) => *well,
            None => task.ignore_first_depends_on_past && !ran_before(client, key, &task.task_id, date).await?,
        };
        let below = graph.node(task_index).downstream.iter().map(|down| &graph.task(*down).task_id);
        let downstream = !task.wait_for_downstream || below.into_iter().all(|id| went_well.get(id) != Some(&false));
        if !(own && downstream) {
            held.insert(task_index);
        }
    }
    Ok(held)
}

/// With catchup the last that was scheduled, otherwise the last of any kind.
async fn run_before(
    client: &impl GenericClient,
    key: &RunKey,
    date: Timestamp,
    catchup: bool,
) -> Result<Option<Before>, StoreError> {
    let query = "
        SELECT run_id, logical_date FROM dag_run
        WHERE dag_id = $1 AND logical_date < $2 AND (run_type <> 'manual' OR NOT $3)
          AND NOT EXISTS (SELECT FROM dag_run own WHERE own.dag_id = $1 AND own.run_id = $4
                          AND own.backfill_id IS NOT NULL AND own.backfill_ordinal = 1)
        ORDER BY logical_date DESC LIMIT 1";
    let row = client.query_opt(query, &[&key.dag_id, &date, &catchup, &key.run_id]).await?;
    Ok(row.map(|row| Before { run_id: row.get(0), logical_date: row.get(1) }))
}

async fn ran_before(
    client: &impl GenericClient,
    key: &RunKey,
    task_id: &str,
    date: Timestamp,
) -> Result<bool, StoreError> {
    let query = "SELECT FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                 WHERE ti.dag_id = $1 AND ti.task_id = $2 AND r.logical_date < $3 LIMIT 1";
    Ok(client.query_opt(query, &[&key.dag_id, &task_id, &date]).await?.is_some())
}
