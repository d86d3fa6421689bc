//! Checks that the scheduler creates runs.

use super::{Passed, Smoke, SmokeError, settling_time};
use jiff::Timestamp;
use leoflow_base::protocol::http::encode;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Delay after which a scheduled run that does not exist counts as overdue.
const OVERDUE: Duration = Duration::from_secs(60);

impl Smoke<'_> {
    /// Reports the last scheduled run, and warns about DAGs whose next run is overdue.
    pub(super) async fn schedules(&self) -> Result<Passed, SmokeError> {
        let last = self.json("/api/v2/dags/~/dagRuns?run_type=scheduled&order_by=-run_after&limit=1").await?;
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let detail = match &last["dag_runs"][0] {
            Value::Null => "no scheduled run yet".to_owned(),
            run => format!(
                "last scheduled run: {}, {}, {}",
                text(&run["dag_id"]),
                time_text(&text(&run["run_after"])),
                text(&run["state"])
            ),
        };
        let deadline = Instant::now() + settling_time();
        loop {
            let overdue = self.overdue().await?;
            if overdue.is_empty() {
                return Ok(detail.into());
            }
            if Instant::now() >= deadline {
                let text = format!("the next scheduled run is overdue: {}", overdue.join(", "));
                return Ok(Passed { detail, warning: Some(text) });
            }
            // After a start, the scheduler first creates the runs that were missed.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Lists the active DAGs whose next run is overdue. Skips a DAG at `max_active_runs`, which waits for its active
    /// runs.
    async fn overdue(&self) -> Result<Vec<String>, SmokeError> {
        let dags = self.json("/api/v2/dags?paused=false&order_by=next_dagrun_create_after&limit=100").await?;
        let limit = Timestamp::now() - OVERDUE;
        let mut overdue = Vec::new();
        for dag in dags["dags"].as_array().into_iter().flatten() {
            let due = dag["next_dagrun_run_after"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let (Some(dag_id), Some(due)) = (dag["dag_id"].as_str(), due) else { continue };
            if due >= limit {
                break;
            }
            let encoded = encode(dag_id);
            let active = format!("/api/v2/dags/{encoded}/dagRuns?state=running&state=queued&limit=1");
            let active = self.json(&active).await?["total_entries"].as_i64().unwrap_or(0);
            if dag["max_active_runs"].as_i64().is_none_or(|most| active < most) {
                overdue.push(format!("{dag_id} ({})", time_text(&due.to_string())));
            }
        }
        Ok(overdue)
    }
}

/// Formats an RFC 3339 time for people; other text stays.
fn time_text(text: &str) -> String {
    let time = text.parse::<Timestamp>();
    time.map_or_else(|_| text.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_for_people() {
        assert_eq!(time_text("2026-11-26T23:54:00Z"), "2026-11-26 23:54:00 UTC");
        assert_eq!(time_text("?"), "?");
    }
}
