//! The scheduler's steps, each one transaction: let runs begin, and take a run as far as it goes.

use super::dag::{Graph, Structure};
use super::events::{self, Event, RunKey};
use super::plan::{self, EndedTry, Instance, Kind, Outcome, Snapshot, Transition};
use super::state::{RunState, TaskState, TryState};
use super::store::StoreError;
use jiff::Timestamp;
use std::collections::HashMap;
use std::rc::Rc;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

/// Graphs of versions in use; a version never changes.
#[derive(Default)]
pub struct Graphs(HashMap<i64, Rc<Graph>>);

/// Versions at once; a laptop has few DAGs that run.
const MOST_GRAPHS: usize = 64;

impl Graphs {
    async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Graph>, StoreError> {
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

/// Lets queued runs begin: of DAGs that are active and not paused, oldest first, `max_active_runs`
/// at once. Returns those that have begun.
pub async fn begin_runs(client: &impl GenericClient) -> Result<Vec<RunKey>, StoreError> {
    let query = "
        WITH waiting AS (
            SELECT r.dag_id, r.run_id,
                   row_number() OVER (PARTITION BY r.dag_id ORDER BY r.run_after, r.queued_at, r.run_id) AS place,
                   coalesce((v.structure->>'max_active_runs')::bigint, 16) AS most,
                   (SELECT count(*) FROM dag_run a WHERE a.dag_id = r.dag_id AND a.state = 'running') AS running
            FROM dag_run r JOIN dag d USING (dag_id) JOIN dag_version v ON v.id = d.current_version_id
            WHERE r.state = 'queued' AND d.is_active AND NOT d.is_paused AND r.run_after <= now())
        UPDATE dag_run r SET state = 'running', start_date = now() FROM waiting w
        WHERE r.dag_id = w.dag_id AND r.run_id = w.run_id AND r.state = 'queued'
          AND (w.most = 0 OR w.running + w.place <= w.most)
        RETURNING r.dag_id, r.run_id";
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| RunKey { dag_id: row.get(0), run_id: row.get(1) }).collect())
}

/// Every run that is under way, for a scheduler that starts, or whose DAG was unpaused.
pub async fn running(client: &impl GenericClient) -> Result<Vec<RunKey>, StoreError> {
    let rows = client.query("SELECT dag_id, run_id FROM dag_run WHERE state = 'running'", &[]).await?;
    Ok(rows.iter().map(|row| RunKey { dag_id: row.get(0), run_id: row.get(1) }).collect())
}

/// What the clock asks for.
#[derive(Debug)]
pub struct Clock {
    /// Runs that have a retry which is due.
    pub due: Vec<RunKey>,
    /// When it will next ask for something.
    pub next: Option<Timestamp>,
}

/// Both of one moment, so that nothing falls between them.
pub async fn clock(client: &mut Client) -> Result<Clock, StoreError> {
    // In a transaction `now()` stands still.
    let transaction = client.transaction().await?;
    let due = "SELECT DISTINCT ti.dag_id, ti.run_id FROM task_instance ti
               JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
               WHERE ti.due_at <= now() AND r.state = 'running' AND NOT d.is_paused";
    let due = transaction.query(due, &[]).await?;
    let next = "
        SELECT least((SELECT min(ti.due_at) FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                      JOIN dag d USING (dag_id) WHERE ti.due_at > now() AND r.state = 'running' AND NOT d.is_paused),
                     (SELECT min(r.run_after) FROM dag_run r JOIN dag d USING (dag_id)
                      WHERE r.state = 'queued' AND r.run_after > now() AND d.is_active AND NOT d.is_paused))";
    let next = transaction.query_one(next, &[]).await?.get(0);
    transaction.commit().await?;
    Ok(Clock { due: due.iter().map(|row| RunKey { dag_id: row.get(0), run_id: row.get(1) }).collect(), next })
}

/// Takes a run as far as it goes now, in one transaction.
pub async fn advance(client: &mut Client, graphs: &mut Graphs, key: &RunKey) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    let locked = "SELECT r.dag_version_id, r.state, d.is_paused, now() AS now FROM dag_run r JOIN dag d USING (dag_id)
                  WHERE r.dag_id = $1 AND r.run_id = $2 FOR UPDATE OF r";
    let Some(run) = transaction.query_opt(locked, &[&key.dag_id, &key.run_id]).await? else { return Ok(()) };
    let (version, state): (Option<i64>, String) = (run.get("dag_version_id"), run.get("state"));
    let (Some(version), true) = (version, state == RunState::Running.as_str()) else { return Ok(()) };
    let graph = graphs.get(&transaction, version).await?;
    let (names, instances) = load(&transaction, key, &graph).await?;
    let snapshot = Snapshot { graph: &graph, is_paused: run.get("is_paused"), instances, now: run.get("now") };
    let plan = plan::plan(&snapshot);
    if plan.transitions.is_empty() && plan.run.is_none() {
        return Ok(());
    }
    apply(&transaction, key, &names, &snapshot, &plan.transitions).await?;
    if let Some(state) = plan.run {
        let query = "UPDATE dag_run SET state = $3, end_date = clock_timestamp() WHERE dag_id = $1 AND run_id = $2";
        transaction.execute(query, &[&key.dag_id, &key.run_id, &state.as_str()]).await?;
    }
    if plan.transitions.iter().any(|transition| transition.to == TaskState::Queued) {
        events::notify(&transaction, &Event::Queued).await?;
    }
    events::notify(&transaction, &Event::Changed(key.clone())).await?;
    transaction.commit().await?;
    Ok(())
}

/// Names and states of a run's instances, in one order.
async fn load(
    transaction: &Transaction<'_>,
    key: &RunKey,
    graph: &Graph,
) -> Result<(Vec<(String, i32)>, Vec<Instance>), StoreError> {
    let query = "
        SELECT ti.task_id, ti.map_index, ti.state, ti.try_number, ti.max_tries, ti.due_at,
               t.state AS try_state, t.may_retry, t.end_date AS try_end
        FROM task_instance ti LEFT JOIN task_try t USING (dag_id, run_id, task_id, map_index, try_number)
        WHERE ti.dag_id = $1 AND ti.run_id = $2";
    let rows = transaction.query(query, &[&key.dag_id, &key.run_id]).await?;
    let names = rows.iter().map(|row| (row.get("task_id"), row.get("map_index"))).collect();
    let instances = rows
        .iter()
        .map(|row| Instance {
            place: graph.place(row.get("task_id")),
            state: row.get::<_, Option<&str>>("state").and_then(TaskState::parse),
            try_number: row.get("try_number"),
            max_tries: row.get("max_tries"),
            due_at: row.get("due_at"),
            ended: ended(row),
        })
        .collect();
    Ok((names, instances))
}

fn ended(row: &Row) -> Option<EndedTry> {
    let at: Timestamp = row.get::<_, Option<Timestamp>>("try_end")?;
    let outcome = match TryState::parse(row.get::<_, Option<&str>>("try_state")?)? {
        TryState::Running => return None,
        TryState::Success => Outcome::Success,
        TryState::Skipped => Outcome::Skipped,
        TryState::Failed => Outcome::Failed { may_retry: row.get("may_retry") },
    };
    Some(EndedTry { outcome, at })
}

/// All in one statement. One that is not as it was read any more (it was claimed meanwhile) is left
/// as it is: whoever changed it says so.
async fn apply(
    transaction: &Transaction<'_>,
    key: &RunKey,
    names: &[(String, i32)],
    snapshot: &Snapshot<'_>,
    transitions: &[Transition],
) -> Result<(), StoreError> {
    let of = |transition: &Transition| &snapshot.instances[transition.index];
    let tasks: Vec<&str> = transitions.iter().map(|one| names[one.index].0.as_str()).collect();
    let maps: Vec<i32> = transitions.iter().map(|one| names[one.index].1).collect();
    let before: Vec<Option<&str>> = transitions.iter().map(|one| of(one).state.map(TaskState::as_str)).collect();
    let states: Vec<&str> = transitions.iter().map(|one| one.to.as_str()).collect();
    let numbers: Vec<i32> = transitions.iter().map(|one| one.try_number).collect();
    let dues: Vec<Option<Timestamp>> = transitions.iter().map(|one| one.due_at).collect();
    let never_ran: Vec<bool> = transitions.iter().map(|one| one.kind == Kind::NeverRan).collect();
    let ended: Vec<Option<Timestamp>> = transitions
        .iter()
        .map(|one| (one.kind == Kind::TryEnded).then(|| of(one).ended.map(|ended| ended.at)).flatten())
        .collect();
    let query = "
        UPDATE task_instance ti SET state = new.state, try_number = new.try_number, due_at = new.due_at,
               queued_at = CASE WHEN new.state = 'queued' THEN clock_timestamp() ELSE ti.queued_at END,
               start_date = CASE WHEN new.never_ran THEN now() ELSE ti.start_date END,
               end_date = CASE WHEN new.never_ran THEN now() ELSE coalesce(new.ended, ti.end_date) END
        FROM unnest($3::text[], $4::integer[], $5::text[], $6::text[], $7::integer[], $8::timestamptz[],
                    $9::boolean[], $10::timestamptz[])
             AS new (task_id, map_index, before, state, try_number, due_at, never_ran, ended)
        WHERE ti.dag_id = $1 AND ti.run_id = $2 AND ti.task_id = new.task_id AND ti.map_index = new.map_index
          AND ti.state IS NOT DISTINCT FROM new.before";
    transaction
        .execute(
            query,
            &[&key.dag_id, &key.run_id, &tasks, &maps, &before, &states, &numbers, &dues, &never_ran, &ended],
        )
        .await?;
    Ok(())
}
