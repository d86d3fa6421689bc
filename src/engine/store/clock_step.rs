//! Corrects stored dates that were written by a clock that was ahead and has been set back since. Otherwise work that
//! waits for these dates would be delayed by as much as the clock was wrong. Other dates are corrected where they are
//! computed, in `due_runs` and the planner.

use super::Result;
use super::events::{self, Event};
use super::run::new_run;
use leoflow_postgres::GenericClient;

/// If a try ended in the future, the delay until the retry or next poke counts from now.
const RETRIES: &str = "
    UPDATE task_instance SET due_at = $1::timestamptz + (due_at - end_date), end_date = $1
    WHERE due_at > end_date AND end_date > $1 AND state IN ('up_for_retry', 'up_for_reschedule')";

/// If a run started in the future, its whole `dagrun_timeout` counts from now.
const RUNS: &str = "
    UPDATE dag_run SET deadline_at = $1::timestamptz + (deadline_at - start_date), start_date = $1
    WHERE state = 'running' AND start_date > $1";

/// If a run was created or cleared in the future, the intervals of its deadlines count from now, except those from other
/// dates.
const DEADLINES: &str = "
    UPDATE deadline d SET due_at = $1::timestamptz + (d.due_at - d.updated_at), updated_at = $1 FROM dag_version v
    WHERE d.state = 'scheduled' AND d.updated_at > $1 AND v.id = d.dag_version_id
      AND v.structure->'deadlines'->(d.alert - 1)->'reference'->>'reference_type'
          IN ('DagRunQueuedAtDeadline', 'AverageRuntimeDeadline')";

/// An instance that was queued in the future counts as queued now; otherwise all instances queued from now on would be
/// claimed before it.
const QUEUED: &str = "
    UPDATE task_instance SET queued_at = clock_timestamp() WHERE state = 'queued' AND queued_at > clock_timestamp()";

/// If a trigger was created in the future, its whole timeout counts from now.
const TRIGGERS: &str = "
    UPDATE task_trigger SET timeout_at = $1::timestamptz + (timeout_at - created_at), created_at = $1
    WHERE fired_at IS NULL AND timeout_at > created_at AND created_at > $1";

/// A sensor that waits without a process pokes immediately, because its row does not tell when the due date was
/// computed.
const SENSORS: &str = "
    UPDATE task_instance SET due_at = $1, start_date = least(start_date, $1)
    WHERE state = 'up_for_reschedule' AND end_date IS NULL AND due_at > $1";

/// Whether sensors that wait without a process poke immediately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensors {
    PokeNow,
    Wait,
}

/// Corrects the dates written by a clock that was ahead. Returns whether due dates of task instances have changed.
pub(crate) async fn correct_dates(client: &impl GenericClient, sensors: Sensors) -> Result<bool> {
    let now = new_run::now();
    let mut changed = client.execute(RETRIES, &[&now]).await?;
    if sensors == Sensors::PokeNow {
        changed += client.execute(SENSORS, &[&now]).await?;
    }
    client.execute(RUNS, &[&now]).await?;
    client.execute(DEADLINES, &[&now]).await?;
    client.execute(QUEUED, &[]).await?;
    if client.execute(TRIGGERS, &[&now]).await? > 0 {
        events::notify(client, &Event::Triggers).await?;
    }
    Ok(changed > 0)
}
