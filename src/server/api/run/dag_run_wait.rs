//! Waits for a run to end: streams its state, one JSON line per poll, and last the requested XCom results.

use super::dag_runs::run_not_found;
use crate::api::prelude::*;
use crate::http::openapi::answers::{Either, Lines};
use axum::body::Body;
use futures_util::stream;
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::instance::xcoms::{self, Pull};
use leoflow_engine::store::run::runs;
use leoflow_engine::store::secret::secrets;
use std::convert::Infallible;
use std::time::Duration;

/// Shortest and longest poll interval.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const RETURN_VALUE: &str = "return_value";

/// A client that waits for a run.
struct RunWait {
    state: AppState,
    run: RunKey,
    interval: Duration,
    /// Tasks whose results are sent at the end.
    tasks: Vec<String>,
    /// True until the first line, which is sent without a delay.
    is_first: bool,
}

query! { pub WaitQuery { Parameter::new("interval", Kind::Seconds).required(), Parameter::new("result", Kind::Texts) } }

pub async fn wait(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<RunPath>,
    params: QueryParams<WaitQuery>,
) -> ApiResult<Either<Value, Lines>> {
    let interval = params.fraction("interval")?.filter(|seconds| *seconds > 0.0).ok_or_else(|| {
        ApiError::unprocessable(&["query", "interval"], "greater_than", "Input should be greater than 0")
    })?;
    let interval = Duration::try_from_secs_f64(interval).unwrap_or(MAX_INTERVAL).clamp(MIN_INTERVAL, MAX_INTERVAL);
    let run = RunKey { dag_id, run_id };
    runs::get(&*state.core.database.get().await?, &run, ReadFor::Reading).await.map_err(run_not_found(&run))?;
    let run_wait = RunWait { state, run, interval, tasks: params.texts("result"), is_first: true };
    let lines = stream::unfold(Some(run_wait), |run_wait| async {
        let mut run_wait = run_wait?;
        if !std::mem::take(&mut run_wait.is_first) {
            tokio::time::sleep(run_wait.interval).await;
        }
        let (line, is_over) = run_wait.next_line().await;
        Some((Ok::<_, Infallible>(format!("{line}\n")), (!is_over).then_some(run_wait)))
    });
    // Like Airflow, sends no content type for JSON lines: the official client cannot parse that type.
    Ok(Either::text(Body::from_stream(lines)))
}

impl RunWait {
    /// Returns the next line, and whether it is the last one.
    async fn next_line(&self) -> (Value, bool) {
        match self.poll().await {
            Ok(polled) => polled,
            // PostgreSQL is restarting, or all pooled connections are in use.
            Err(error) if error.status() == StatusCode::SERVICE_UNAVAILABLE => {
                (json!({"state": null, "error": error.message()}), false)
            }
            // Waiting does not help: the run was deleted, or the request is invalid.
            Err(error) => (json!({"state": null, "error": error.message()}), true),
        }
    }

    /// Reads the run. Returns the line for its state, and whether the run has ended.
    async fn poll(&self) -> ApiResult<(Value, bool)> {
        let client = self.state.core.database.get().await?;
        let run = runs::get(&*client, &self.run, ReadFor::Reading).await?;
        let mut line = json!({"state": run.state});
        let is_over = run.state.is_finished();
        if is_over && !self.tasks.is_empty() {
            let pull = Pull {
                run: &self.run,
                task_ids: &self.tasks,
                key: RETURN_VALUE,
                positions: None,
                iteration: None,
                include_prior_dates: false,
                offset: 0,
                limit: None,
            };
            let mut results = results_by_task(&xcoms::pull(&*client, &pull).await?);
            secrets::stored(&*client, &self.state.core.cipher).await?.mask_json(&mut results);
            line["results"] = results;
        }
        Ok((line, is_over))
    }
}

/// Groups results by task id: one value, or a list for a mapped task.
fn results_by_task(returned: &[(String, Position, String)]) -> Value {
    let mut by_task: Map<String, Value> = Map::new();
    for (task_id, position, text) in returned {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        if position.map_index() < 0 {
            by_task.insert(task_id.clone(), value);
        } else if let Some(list) = by_task.entry(task_id.clone()).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value);
        }
    }
    by_task.into()
}
