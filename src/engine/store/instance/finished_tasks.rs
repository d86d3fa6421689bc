//! Counts of finished task instances over time, for the chart on the status page.

use crate::store::StoreError;
use crate::store::rows::{fetch_all, from_row};
use jiff::{SignedDuration, Timestamp};
use leoflow_postgres::GenericClient;

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

/// Counts the task instances that finished from `start` on and before `end`, per interval of the given length. Leaves
/// out intervals without instances.
pub async fn per_interval(
    client: &impl GenericClient,
    (start, end): (Timestamp, Timestamp),
    length: SignedDuration,
) -> Result<Vec<FinishedTasks>, StoreError> {
    let query = "
        SELECT floor(extract(epoch FROM end_date - $1::timestamptz)::float8 / $3::float8)::bigint AS interval,
               count(*) FILTER (WHERE state = 'success') AS succeeded, count(*) FILTER (WHERE state = 'failed') AS failed
        FROM task_instance
        WHERE state IN ('success', 'failed') AND start_date >= $4 AND end_date >= $1 AND end_date < $2
        GROUP BY 1 ORDER BY 1";
    let earliest = start.checked_sub(LONGEST_RUN).unwrap_or(start);
    fetch_all(client, query, &[&start, &end, &length.as_secs_f64(), &earliest]).await
}
