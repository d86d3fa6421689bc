//! Waiting for a run to end: its state again and again, a line each, and what its tasks have returned at the end.

use crate::engine::keys::RunKey;
use crate::engine::store::secrets;
use crate::engine::store::xcoms::{self, Pull};
use crate::engine::store::{ReadFor, StoreError, runs};
use crate::server::api_error::ApiError;
use crate::server::openapi::answers::{Either, Lines};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::stream;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Shorter ones would only cost time.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);
const RETURNED: &str = "return_value";

struct Waiting {
    state: Arc<AppState>,
    run: RunKey,
    interval: Duration,
    tasks: Vec<String>,
    is_first: bool,
}

pub struct OfWait;

impl Query for OfWait {
    const OTHERS: &'static [Parameter] =
        &[Parameter::new("interval", Kind::Seconds).required(), Parameter::new("result", Kind::Texts)];
}

pub async fn wait(
    State(state): State<Arc<AppState>>,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    asked: Asked<OfWait>,
) -> Result<Either<Value, Lines>, ApiError> {
    let interval = asked.fraction("interval")?.filter(|seconds| *seconds > 0.0).ok_or_else(|| {
        ApiError::unprocessable(&["query", "interval"], "greater_than", "Input should be greater than 0")
    })?;
    let interval = Duration::try_from_secs_f64(interval).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
    let run = RunKey { dag_id, run_id };
    runs::get(&*state.database.get().await?, &run, ReadFor::Reading).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let detail = format!("The DagRun with dag_id: `{}` and run_id: `{}` was not found", run.dag_id, run.run_id);
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    })?;
    let waiting = Waiting { state, run, interval, tasks: asked.texts("result"), is_first: true };
    let lines = stream::unfold(Some(waiting), |waiting| async {
        let mut waiting = waiting?;
        if !std::mem::take(&mut waiting.is_first) {
            tokio::time::sleep(waiting.interval).await;
        }
        let (line, is_over) = waiting.look().await;
        Some((Ok::<_, Infallible>(format!("{line}\n")), (!is_over).then_some(waiting)))
    });
    // Of no said type, as Airflow's: its official client reads no other lines of JSON.
    Ok(Either::text(Body::from_stream(lines)))
}

impl Waiting {
    /// The line, and whether it is the last.
    async fn look(&self) -> (Value, bool) {
        match self.ask().await {
            Ok(found) => found,
            // The datastore is being started again.
            Err(error) if error.status() == StatusCode::SERVICE_UNAVAILABLE => {
                (json!({"state": null, "error": error.message()}), false)
            }
            // Nothing that waiting helps: the run was deleted, or what is asked for cannot be.
            Err(error) => (json!({"state": null, "error": error.message()}), true),
        }
    }

    async fn ask(&self) -> Result<(Value, bool), ApiError> {
        let client = self.state.database.get().await?;
        let run = runs::get(&*client, &self.run, ReadFor::Reading).await?;
        let mut line = json!({"state": run.state});
        let is_over = run.state.is_finished();
        if is_over && !self.tasks.is_empty() {
            let pull = Pull {
                run: &self.run,
                task_ids: &self.tasks,
                key: RETURNED,
                map_indexes: None,
                include_prior_dates: false,
                offset: 0,
                limit: None,
            };
            let mut found = results(&xcoms::pull(&*client, &pull).await?);
            secrets::stored(&*client, &self.state.cipher).await?.mask_json(&mut found);
            line["results"] = found;
        }
        Ok((line, is_over))
    }
}

/// By task: the value, or those of all instances of one that is mapped.
fn results(found: &[(String, i32, String)]) -> Value {
    let mut by_task: Map<String, Value> = Map::new();
    for (task_id, map_index, text) in found {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        if *map_index < 0 {
            by_task.insert(task_id.clone(), value);
        } else if let Some(list) = by_task.entry(task_id.clone()).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value);
        }
    }
    by_task.into()
}
