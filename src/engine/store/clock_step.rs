//! Dates that a clock wrote which was ahead and has been set back since: what waits for them would wait as long as the
//! clock was wrong. `due_runs` and the planner set right those that they work out themselves.

use super::StoreError;
use super::events::{self, Event};
use super::new_run;
use crate::postgres::GenericClient;

/// A try that ended in the future: what follows it comes as long after now as it was to come after that end.
const TRIES_AGAIN: &str = "
    UPDATE task_instance SET due_at = $1::timestamptz + (due_at - end_date), end_date = $1
    WHERE due_at > end_date AND end_date > $1 AND state IN ('up_for_retry', 'up_for_reschedule')";

/// A run that began in the future has the whole of its time from now.
const RUNS: &str = "
    UPDATE dag_run SET deadline_at = $1::timestamptz + (deadline_at - start_date), start_date = $1
    WHERE state = 'running' AND start_date > $1";

/// Else everything that is queued from now on goes before it.
const QUEUED: &str = "
    UPDATE task_instance SET queued_at = clock_timestamp() WHERE state = 'queued' AND queued_at > clock_timestamp()";

const TRIGGERS: &str = "
    UPDATE task_trigger SET timeout_at = $1::timestamptz + (timeout_at - created_at), created_at = $1
    WHERE fired_at IS NULL AND timeout_at > created_at AND created_at > $1";

/// A sensor that waits without a process looks at once: when it would look next does not say when that was worked out.
const SENSORS: &str = "
    UPDATE task_instance SET due_at = $1, start_date = least(start_date, $1)
    WHERE state = 'up_for_reschedule' AND end_date IS NULL AND due_at > $1";

/// Whether sensors that wait without a process look at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensors {
    LookAtOnce,
    Wait,
}

/// Sets right what was written by a clock that was ahead. Returns whether task instances have changed.
pub async fn set_right(client: &impl GenericClient, sensors: Sensors) -> Result<bool, StoreError> {
    let now = new_run::now();
    let mut changed = client.execute(TRIES_AGAIN, &[&now]).await?;
    if sensors == Sensors::LookAtOnce {
        changed += client.execute(SENSORS, &[&now]).await?;
    }
    client.execute(RUNS, &[&now]).await?;
    client.execute(QUEUED, &[]).await?;
    if client.execute(TRIGGERS, &[&now]).await? > 0 {
        events::notify(client, &Event::Triggers).await?;
    }
    Ok(changed > 0)
}
