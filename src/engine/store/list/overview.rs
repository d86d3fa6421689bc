//! Counts of DAGs, runs and task instances, and durations of runs, for the dashboard and the calendar.

use super::filter::Range;
use super::listing::MAX_COUNTED;
use crate::store::Result;
use crate::store::rows::{fetch_all, fetch_one, from_row};
use jiff::{SignedDuration, Timestamp};
use leoflow_postgres::GenericClient;
use std::collections::BTreeMap;

/// Number of rows in each state. At most `MAX_COUNTED + 1` rows are counted; if there are more, the numbers are lower
/// bounds.
#[derive(Debug)]
pub struct Counts {
    pub states: BTreeMap<String, i64>,
    pub are_lower_bounds: bool,
}

async fn counts(client: &impl GenericClient, from: &str, (start, end): (Timestamp, Timestamp)) -> Result<Counts> {
    let query = format!(
        "SELECT coalesce(state, 'no_status'), count(*)
         FROM (SELECT {from} WHERE r.run_after >= $1 AND r.run_after <= $2 LIMIT $3) AS counted GROUP BY 1"
    );
    let rows: Vec<(String, i64)> = fetch_all(client, &query, &[&start, &end, &(MAX_COUNTED + 1)]).await?;
    let states: BTreeMap<String, i64> = rows.into_iter().collect();
    let are_lower_bounds = states.values().sum::<i64>() > MAX_COUNTED;
    Ok(Counts { states, are_lower_bounds })
}

/// Counts the runs that were due in the time range.
pub async fn runs(client: &impl GenericClient, range: (Timestamp, Timestamp)) -> Result<Counts> {
    counts(client, "r.state FROM dag_run r", range).await
}

/// Counts the task instances of the runs that were due in the time range.
pub async fn instances(client: &impl GenericClient, range: (Timestamp, Timestamp)) -> Result<Counts> {
    counts(client, "ti.state FROM dag_run r JOIN task_instance ti USING (dag_id, run_id)", range).await
}

from_row! {
    /// Numbers of DAGs: not paused (`active`), with a failed last run, with a running run, with a queued run.
    #[derive(Debug)]
    pub struct DagCounts {
        pub active: i64,
        pub failed: i64,
        pub running: i64,
        pub queued: i64,
    }
}

pub async fn dags(client: &impl GenericClient) -> Result<DagCounts> {
    let query = "
        SELECT count(*) FILTER (WHERE NOT d.is_paused) AS active,
               count(*) FILTER (WHERE (SELECT r.state FROM dag_run r
                                       WHERE r.dag_id = d.dag_id AND r.logical_date IS NOT NULL
                                       ORDER BY r.logical_date DESC LIMIT 1) = 'failed') AS failed,
               count(*) FILTER (WHERE EXISTS (SELECT FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'running')) AS running,
               count(*) FILTER (WHERE EXISTS (SELECT FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'queued')) AS queued
        FROM dag d WHERE d.is_active";
    fetch_one(client, query, &[]).await
}

/// Durations in seconds of the newest finished runs of a DAG, shortest first. `newest` is the maximum number of runs.
pub async fn durations(client: &impl GenericClient, dag_id: &str, newest: i64) -> Result<Vec<f64>> {
    let query = "
        SELECT seconds FROM (
            SELECT extract(epoch FROM end_date - start_date)::float8 AS seconds FROM dag_run
            WHERE dag_id = $1 AND state IN ('success', 'failed') ORDER BY run_after DESC LIMIT $2) AS newest
        WHERE seconds IS NOT NULL ORDER BY seconds";
    fetch_all(client, query, &[&dag_id, &newest]).await
}

from_row! {
    /// Number of runs of a DAG in one state in the day or hour that begins at `at`.
    #[derive(Debug)]
    pub struct CalendarCount {
        pub at: Timestamp,
        pub state: String,
        pub count: i64,
        /// Latest start and latest end of the runs' data intervals.
        pub interval_start: Option<Timestamp>,
        pub interval_end: Option<Timestamp>,
    }
}

/// Whether runs are counted per hour or per day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    Hourly,
    Daily,
}

impl Granularity {
    /// As SQL names it.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Hourly => "hour",
            Self::Daily => "day",
        }
    }
}

/// Bounds of the runs' logical dates, or of their partition dates.
#[derive(Debug, Clone, Copy)]
pub enum DateRange {
    Logical(Range<Timestamp>),
    Partition(Range<Timestamp>),
}

/// Counts the runs in the range, by their partition date or, without one, by their logical date. As in Airflow's
/// `CalendarService`, that does not depend on the date that the range bounds: a run that was triggered with both dates
/// is found by its logical date and counted at its partition date.
pub async fn calendar(
    client: &impl GenericClient,
    dag_id: &str,
    granularity: Granularity,
    range: DateRange,
) -> Result<Vec<CalendarCount>> {
    let unit = granularity.unit();
    let (column, range) = match range {
        DateRange::Logical(range) => ("logical_date", range),
        DateRange::Partition(range) => ("partition_date", range),
    };
    let (conditions, bounds) = range.conditions(column, 3);
    let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&dag_id, &unit];
    parameters.extend(bounds.iter().map(|bound| bound as &(dyn tokio_postgres::types::ToSql + Sync)));
    let query = format!(
        "SELECT date_trunc($2, coalesce(partition_date, logical_date), 'UTC') AS at, state, count(*) AS count,
                max(data_interval_start) AS interval_start, max(data_interval_end) AS interval_end
         FROM dag_run WHERE dag_id = $1 AND coalesce(partition_date, logical_date) IS NOT NULL{conditions}
         GROUP BY 1, 2 ORDER BY 1"
    );
    fetch_all(client, &query, &parameters).await
}

/// Maximum time between the start of a counted instance and the start of the range. The query needs this bound for the
/// index on `(state, start_date)`: there is none on `end_date`.
const LONGEST_RUN: SignedDuration = SignedDuration::from_hours(24);

from_row! {
    /// Task instances that finished within one interval. Only the last try of each counts.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FinishedTasks {
        /// Number of the interval; 0 begins at the start of the range.
        pub interval: i64,
        pub succeeded: i64,
        pub failed: i64,
    }
}

/// The number of task instances of runs in each state.
pub async fn instance_states(
    client: &impl GenericClient,
    dag_id: &str,
    run_ids: &[String],
) -> Result<BTreeMap<String, i64>> {
    let query = "SELECT coalesce(state, 'no_status'), count(*) FROM task_instance
                 WHERE dag_id = $1 AND run_id = ANY ($2) GROUP BY 1";
    let rows: Vec<(String, i64)> = fetch_all(client, query, &[&dag_id, &run_ids]).await?;
    Ok(rows.into_iter().collect())
}

/// Counts the task instances that finished from `start` on and before `end`, per interval of the given length. Leaves
/// out intervals without instances.
pub async fn finished_tasks(
    client: &impl GenericClient,
    (start, end): (Timestamp, Timestamp),
    length: SignedDuration,
) -> Result<Vec<FinishedTasks>> {
    let query = "
        SELECT floor(extract(epoch FROM end_date - $1::timestamptz)::float8 / $3::float8)::bigint AS interval,
               count(*) FILTER (WHERE state = 'success') AS succeeded, count(*) FILTER (WHERE state = 'failed') AS failed
        FROM task_instance
        WHERE state IN ('success', 'failed') AND start_date >= $4 AND end_date >= $1 AND end_date < $2
        GROUP BY 1 ORDER BY 1";
    let earliest = start.checked_sub(LONGEST_RUN).unwrap_or(start);
    fetch_all(client, query, &[&start, &end, &length.as_secs_f64(), &earliest]).await
}
