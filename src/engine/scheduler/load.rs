//! Reads the planner's input, in the same transaction that applies the plan.

use crate::model::dag::Structure;
use crate::model::keys::RunKey;
use crate::model::state::{TaskState, TryState};
use crate::planner::graph::Graph;
use crate::planner::plan::{Decision, EndedTry, Instance, Outcome};
use crate::store::StoreError;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// Cache of the graphs of versions in use; a version never changes.
#[derive(Default)]
pub struct Graphs(HashMap<i64, Rc<Graph>>);

/// Maximum number of cached graphs; a laptop runs few DAGs at once.
const MAX_GRAPHS: usize = 64;

impl Graphs {
    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Graph>, StoreError> {
        if let Some(graph) = self.0.get(&id) {
            return Ok(graph.clone());
        }
        let row = client.query_one("SELECT structure FROM dag_version WHERE id = $1", &[&id]).await?;
        let Json(structure): Json<Structure> = row.get(0);
        if self.0.len() >= MAX_GRAPHS {
            self.0.clear();
        }
        let graph = Rc::new(Graph::new(structure));
        self.0.insert(id, graph.clone());
        Ok(graph)
    }
}

/// SQL query for the instances of a run with their current tries. `$1` is the DAG id, `$2` the run id; the macro takes
/// a further condition.
macro_rules! instances_where {
    ($states:literal) => {
        concat!(
            "SELECT ti.task_id, ti.map_index, ti.state, ti.try_number, ti.max_tries, ti.due_at,
                    CASE WHEN ti.state = 'up_for_reschedule' AND ti.end_date IS NULL THEN ti.start_date END AS waits_since,
                    t.state AS try_state, t.may_retry, t.end_date AS try_end, t.due_at AS try_due, t.skipped_tasks
             FROM task_instance ti
             -- One index lookup per instance, independent of the statistics.
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

/// Returns the names and the instances of a run, in the same order.
pub async fn instances(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<(Vec<(String, i32)>, Vec<Instance>), StoreError> {
    let rows = client.query(instances_where!("true"), &[&key.dag_id, &key.run_id]).await?;
    Ok(rows.iter().map(|row| instance(row, graph)).unzip())
}

/// Returns the instances that the agent has claimed and the scheduler has not settled. Only these change without a new
/// revision of the run.
pub async fn claimed_instances(
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
        ended: ended_try(row),
    };
    ((task_id, map_index), instance)
}

/// The end of the current try; `None` while it runs.
fn ended_try(row: &Row) -> Option<EndedTry> {
    let ended_at: Timestamp = row.get::<_, Option<Timestamp>>("try_end")?;
    let outcome = match TryState::parse(row.get::<_, Option<&str>>("try_state")?)? {
        TryState::Running => return None,
        TryState::Success => Outcome::Success,
        TryState::Skipped => Outcome::Skipped,
        TryState::Failed => Outcome::Failed { may_retry: row.get("may_retry"), due: row.get("try_due") },
        TryState::UpForReschedule => {
            Outcome::Rescheduled { due: row.get::<_, Option<Timestamp>>("try_due").unwrap_or(ended_at) }
        }
        TryState::Deferred => Outcome::Deferred { fired: row.get("try_due") },
        TryState::AwaitingInput => Outcome::AwaitingInput { answered: row.get("try_due") },
    };
    Some(EndedTry {
        outcome,
        at: ended_at,
        skips: row.get::<_, Option<Vec<String>>>("skipped_tasks").unwrap_or_default(),
    })
}

/// Reads the decisions of branches and short circuits.
pub async fn decisions(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<HashMap<(usize, i32), Decision>, StoreError> {
    let mut decisions = HashMap::new();
    if !graph.has_decisions {
        return Ok(decisions);
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
            decisions.insert((task_index, row.get(1)), decision);
        }
    }
    Ok(decisions)
}

/// The run that `depends_on_past` refers to.
struct PreviousRun {
    run_id: String,
    logical_date: Timestamp,
}

/// Returns the tasks that may not start because of the outcome of the previous run.
pub async fn held_by_past(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
    logical_date: Option<Timestamp>,
) -> Result<HashSet<usize>, StoreError> {
    let mut held = HashSet::new();
    let (true, Some(date)) = (graph.has_past, logical_date) else { return Ok(held) };
    let catchup = graph.structure.catchup;
    let Some(previous) = previous_run(client, key, date, catchup).await? else { return Ok(held) };
    // Removed instances do not count: a task whose instances were all removed has succeeded.
    let query = "
        SELECT task_id, bool_and(coalesce(state IN ('success', 'skipped', 'removed'), false)) FROM task_instance
        WHERE dag_id = $1 AND run_id = $2 GROUP BY task_id";
    let rows = client.query(query, &[&key.dag_id, &previous.run_id]).await?;
    let succeeded: HashMap<String, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for task_index in 0..graph.len() {
        let task = graph.task(task_index);
        if !task.depends_on_past {
            continue;
        }
        let start = task.start_date.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        if catchup && start.is_some_and(|start| previous.logical_date < start) {
            continue;
        }
        let past_allows = match succeeded.get(&task.task_id) {
            Some(has_succeeded) => *has_succeeded,
            None => {
                task.ignore_first_depends_on_past && !has_earlier_instance(client, key, &task.task_id, date).await?
            }
        };
        let downstream = graph.node(task_index).downstream.iter().map(|down| &graph.task(*down).task_id);
        let downstream_allows =
            !task.wait_for_downstream || downstream.into_iter().all(|id| succeeded.get(id) != Some(&false));
        if !(past_allows && downstream_allows) {
            held.insert(task_index);
        }
    }
    Ok(held)
}

/// Finds the previous run by logical date: with catchup the last run that is not manual, otherwise the last run of any
/// type. The first run of a backfill has no previous run.
async fn previous_run(
    client: &impl GenericClient,
    key: &RunKey,
    date: Timestamp,
    catchup: bool,
) -> Result<Option<PreviousRun>, StoreError> {
    let query = "
        SELECT run_id, logical_date FROM dag_run
        WHERE dag_id = $1 AND logical_date < $2 AND (run_type <> 'manual' OR NOT $3)
          AND NOT EXISTS (SELECT FROM dag_run own WHERE own.dag_id = $1 AND own.run_id = $4
                          AND own.backfill_id IS NOT NULL AND own.backfill_ordinal = 1)
        ORDER BY logical_date DESC LIMIT 1";
    let row = client.query_opt(query, &[&key.dag_id, &date, &catchup, &key.run_id]).await?;
    Ok(row.map(|row| PreviousRun { run_id: row.get(0), logical_date: row.get(1) }))
}

/// True if an earlier run by logical date has an instance of the task.
async fn has_earlier_instance(
    client: &impl GenericClient,
    key: &RunKey,
    task_id: &str,
    date: Timestamp,
) -> Result<bool, StoreError> {
    let query = "SELECT FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                 WHERE ti.dag_id = $1 AND ti.task_id = $2 AND r.logical_date < $3 LIMIT 1";
    Ok(client.query_opt(query, &[&key.dag_id, &task_id, &date]).await?.is_some())
}
