//! `/api/v2/dags/{dag_id}/dagRuns`, with Airflow's names and shapes.

use crate::api::instance::clear::check_note;
use crate::api::prelude::*;
use crate::api::views::{self, BUNDLE, DAGRunResponse};
use crate::history::deleted_logs::DeletedLogs;
use crate::http::body::nullable;
use crate::http::caller::Caller;
use crate::http::changes::is_in_mask;
use crate::http::query::UpdateMaskQuery;
use axum::Extension;
use axum::http::{HeaderMap, header};
use leoflow_base::protocol::task_log;
use leoflow_engine::store::dag::dags::{self, Scheduling};
use leoflow_engine::store::instance::mark;
use leoflow_engine::store::run::runs::{self, Trigger};
use serde::Deserializer;

/// 404 in Airflow's words.
pub fn run_not_found(RunKey { dag_id, run_id }: &RunKey) -> impl FnOnce(StoreError) -> ApiError {
    move |error| match error {
        StoreError::NotFound { what: "run", .. } => {
            ApiError::not_found(format!("The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found"))
        }
        other => other.into(),
    }
}

pub async fn get(
    Datastore(client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
) -> JsonResult<DAGRunResponse> {
    let key = RunKey { dag_id, run_id };
    let run = runs::get(&*client, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    Ok(Json(views::run(run)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["logical_date"]))]
pub struct TriggerDAGRunPostBody {
    #[serde(default)]
    dag_run_id: Option<String>,
    #[serde(default)]
    data_interval_start: Option<Timestamp>,
    #[serde(default)]
    data_interval_end: Option<Timestamp>,
    /// Required but nullable, as in Airflow.
    #[serde(deserialize_with = "explicit")]
    logical_date: Option<Timestamp>,
    #[serde(default)]
    run_after: Option<Timestamp>,
    #[serde(default)]
    conf: Option<Map<String, Value>>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(default)]
    bundle_version: Option<String>,
    /// No more runs are scheduled, and the DAG is paused once its runs have ended.
    #[serde(default)]
    drain_dag: bool,
}

/// A run uses the current version: the version of its bundle that it could name.
pub fn check_bundle_version(version: Option<&str>) -> ApiResult<()> {
    match version {
        None => Ok(()),
        Some(version) => Err(ApiError::bad_request(format!(
            "bundle_version {version:?} cannot be chosen: the bundle {BUNDLE} has no versions, and runs use the newest code"
        ))),
    }
}

/// Deserializes a nullable field that must be present.
fn explicit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::deserialize(deserializer)
}

/// Returns the interval; fails when only one end is given.
pub fn parse_interval(start: Option<Timestamp>, end: Option<Timestamp>) -> ApiResult<Option<(Timestamp, Timestamp)>> {
    if start.is_some() == end.is_some() {
        return Ok(start.zip(end));
    }
    let message =
        "Value error, Either both data_interval_start and data_interval_end must be provided or both must be None";
    Err(ApiError::unprocessable(&["body"], "value_error", message))
}

pub async fn trigger(
    State(state): Shared,
    Id(dag_id): Id,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(body): Body<TriggerDAGRunPostBody>,
) -> JsonResult<DAGRunResponse> {
    let data_interval = parse_interval(body.data_interval_start, body.data_interval_end)?;
    let triggered_by = match caller {
        Caller::LocalAdmin => "cli",
        Caller::Network if headers.contains_key(header::REFERER) => "ui",
        Caller::Network => "rest_api",
    };
    let trigger = Trigger {
        run_id: body.dag_run_id,
        logical_date: body.logical_date,
        data_interval,
        run_after: body.run_after,
        conf: body.conf.unwrap_or_default(),
        note: body.note,
        triggered_by,
        user: state.auth.admin_email(),
        run_type: None,
        partition_key: body.partition_key,
    };
    let convert_error = |error| match error {
        StoreError::NotFound { .. } => ApiError::not_found(format!("Dag with dag_id: '{dag_id}' not found")),
        StoreError::Invalid(text) => ApiError::bad_request(text),
        other => other.into(),
    };
    check_bundle_version(body.bundle_version.as_deref())?;
    trigger_run(&state, &dag_id, trigger, body.drain_dag, convert_error).await
}

/// Triggers a run, with the data interval of a custom timetable unless one is given.
pub async fn trigger_run(
    state: &AppState,
    dag_id: &str,
    mut trigger: Trigger,
    drains: bool,
    convert_error: impl FnOnce(StoreError) -> ApiError,
) -> JsonResult<DAGRunResponse> {
    if let (Some(date), None) = (trigger.logical_date, trigger.data_interval) {
        trigger.data_interval = custom_interval(state, dag_id, date).await?;
    }
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let run = runs::trigger(&transaction, dag_id, &trigger).await.map_err(convert_error)?;
    if drains {
        dags::set_scheduling(&transaction, dag_id, Scheduling::Draining).await?;
    }
    transaction.commit().await?;
    Ok(Json(views::run(run)))
}

/// Asks a DAG's custom timetable for the data interval of a run at `date`; `None` for other timetables, for an unknown
/// DAG, and without a workspace.
async fn custom_interval(state: &AppState, dag_id: &str, date: Timestamp) -> ApiResult<Option<(Timestamp, Timestamp)>> {
    // The timetable's code may be slow, so no pooled connection is held while it runs.
    let dag_result = dags::get(&*state.core.database.get().await?, dag_id).await;
    let Ok(dag) = dag_result else { return Ok(None) };
    let has_custom_timetable = dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.is_custom());
    if !has_custom_timetable || state.dag_code.workspace().is_none() {
        return Ok(None);
    }
    let interval = state.dag_code.manual_interval(dag.version_id, dag_id, date).await;
    let interval = interval.map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(Some((interval.start, interval.end)))
}

/// States that can be set by hand.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DagRunMutableStates {
    Queued,
    Success,
    Failed,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DAGRunPatchBody {
    #[schemars(with = "Option<DagRunMutableStates>")]
    state: Option<RunState>,
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<String>", length(max = 1000))]
    note: Option<Option<String>>,
}

impl DAGRunPatchBody {
    pub fn check(&self) -> ApiResult<()> {
        check_note(self.note.as_ref().and_then(Option::as_deref))?;
        if self.state != Some(RunState::Running) {
            return Ok(());
        }
        let message = "Input should be 'queued', 'success' or 'failed'";
        Err(ApiError::unprocessable(&["body", "state"], "enum", message))
    }

    /// Applies the change; an empty mask means all fields.
    pub async fn apply(self, transaction: &Transaction<'_>, key: &RunKey, mask: &[String]) -> ApiResult<()> {
        if let Some(note) = self.note.filter(|_| is_in_mask(mask, "note")) {
            let note = note.filter(|note| !note.is_empty());
            runs::set_note(transaction, key, note.as_deref()).await.map_err(run_not_found(key))?;
        }
        if let Some(new) = self.state.filter(|_| is_in_mask(mask, "state")) {
            mark::run(transaction, key, new).await.map_err(run_not_found(key))?;
        }
        Ok(())
    }
}

pub async fn patch(
    Datastore(mut client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
    params: QueryParams<UpdateMaskQuery>,
    Body(body): Body<DAGRunPatchBody>,
) -> JsonResult<DAGRunResponse> {
    let key = RunKey { dag_id, run_id };
    body.check()?;
    let transaction = client.transaction().await?;
    body.apply(&transaction, &key, &params.texts("update_mask")).await?;
    let run = runs::get(&transaction, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    transaction.commit().await?;
    Ok(Json(views::run(run)))
}

pub async fn delete(State(state): Shared, Segments((dag_id, run_id)): Segments<RunPath>) -> ApiResult<NoContent> {
    let key = RunKey { dag_id, run_id };
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    runs::delete(&transaction, &key).await.map_err(run_not_found(&key))?;
    let folder = task_log::folder_of_run(&state.core.home, &key.dag_id, &key.run_id);
    let logs = DeletedLogs::quarantine(&state.core.home, folder).await;
    transaction.commit().await?;
    logs.remove();
    Ok(NoContent)
}
