//! `/api/v2/backfills`, with Airflow's names and shapes.

use super::rerun_version;
use crate::api::prelude::*;
use crate::dag_code::DagCode;
use leoflow_base::counted::counted;
use leoflow_base::sys::blocking;
use leoflow_engine::schedule::timetable::{Info, Restriction};
use leoflow_engine::schedule::upcoming::{self, RangeProblem};
use leoflow_engine::store::dag::dags::{self, Dag, Scheduling};
use leoflow_engine::store::run::backfills::{
    self, Backfill, BackfillField, BackfillRequest, BackfillRun, BackfillRunField, BackfillRunFilter, Change, Reprocess,
};
use leoflow_engine::store::run::version_choice::VersionChoice;
use std::time::Duration;

/// Maximum runs in one backfill; a larger range is refused with its count, so that the user can split it.
const MAX_RUNS: usize = 100_000;
/// Maximum task instances in one backfill; all are created within one request.
const MAX_INSTANCES: usize = 300_000;
/// Maximum runs for a custom timetable, whose code is called once per run.
const MAX_CUSTOM_RUNS: usize = 1_000;
/// Limit for counting the runs of a schedule, well within the request timeout.
const COUNT_TIMEOUT: Duration = Duration::from_secs(4);
pub const FIELDS: Fields<BackfillField> =
    Fields { order: &[("id", BackfillField::Id), ("created_at", BackfillField::CreatedAt)], ..Fields::NONE };

view! {
    pub struct BackfillResponse;
    pub fn view(backfill: Backfill) {
        #[schemars(range(min = 0))]
        id: i64,
        dag_id: String = backfill.dag_id.clone(),
        from_date: Stamp = Stamp(backfill.from_date),
        to_date: Stamp = Stamp(backfill.to_date),
        dag_run_conf: Option<Map<String, Value>> = Some(backfill.conf),
        is_paused: bool,
        reprocess_behavior: Reprocess,
        max_active_runs: i32,
        created_at: Stamp = Stamp(backfill.created_at),
        completed_at: Option<Stamp> = backfill.completed_at.map(Stamp),
        updated_at: Stamp = Stamp(backfill.updated_at),
        dag_display_name: String = backfill.dag_id,
    }
}

collection! { BackfillCollectionResponse { backfills: BackfillResponse } }

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillPostBody {
    dag_id: String,
    from_date: Timestamp,
    to_date: Timestamp,
    #[serde(default)]
    run_backwards: bool,
    #[serde(default)]
    dag_run_conf: Option<Map<String, Value>>,
    #[serde(default)]
    reprocess_behavior: Reprocess,
    #[serde(default = "ten")]
    max_active_runs: i32,
    #[serde(default)]
    run_on_latest_version: Option<bool>,
    #[serde(default)]
    drain_dag: bool,
}

fn ten() -> i32 {
    10
}

impl From<BackfillPostBody> for BackfillRequest {
    fn from(body: BackfillPostBody) -> Self {
        Self {
            dag_id: body.dag_id,
            from_date: body.from_date,
            to_date: body.to_date,
            run_backwards: body.run_backwards,
            conf: body.dag_run_conf.unwrap_or_default(),
            reprocess: body.reprocess_behavior,
            version: VersionChoice::Newest,
            max_active_runs: body.max_active_runs,
        }
    }
}

/// Converts store errors to Airflow's responses.
fn to_api_error(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { what: "dag", id } => ApiError::not_found(format!("Could not find dag {id}")),
        StoreError::NotFound { .. } => ApiError::not_found("Backfill not found"),
        StoreError::Invalid(text) => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text),
        other => other.into(),
    }
}

/// Returns the runs that the timetable has in the backfill's range, in creation order. Some may exist already.
async fn planned_runs(code: &DagCode, dag: &Dag, request: &BackfillRequest) -> ApiResult<Vec<Info>> {
    let Some(timetable) = &dag.structure.timetable else { return Ok(Vec::new()) };
    let now = Timestamp::now();
    let restriction = Restriction { earliest: Some(request.from_date), latest: Some(request.to_date), catchup: true };
    let mut runs = Vec::new();
    let problem = |text: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    if timetable.is_custom() {
        let infos = code.next_runs(dag.version_id, &dag.dag_id, None, restriction, MAX_CUSTOM_RUNS + 1).await;
        runs.extend(
            infos.map_err(|error| problem(error.to_string()))?.into_iter().take_while(|info| info.run_after < now),
        );
        if runs.len() > MAX_CUSTOM_RUNS {
            return Err(problem(too_many(&format!("more than {MAX_CUSTOM_RUNS}"), MAX_CUSTOM_RUNS)));
        }
    } else {
        let (timetable, range) = (timetable.clone(), (request.from_date, request.to_date));
        // On a blocking thread, because computing thousands of dates takes time.
        let result = blocking::run(move || upcoming::in_range(&timetable, range, now, MAX_RUNS, COUNT_TIMEOUT)).await;
        runs = result.map_err(|error| ApiError::internal(&error))?.map_err(|why| problem(range_problem_text(&why)))?;
    }
    if request.run_backwards {
        runs.reverse();
    }
    Ok(runs)
}

/// Explains why the runs of the range cannot be listed.
fn range_problem_text(problem: &RangeProblem) -> String {
    match problem {
        RangeProblem::TooMany { count, is_exact: true } => too_many(&count.to_string(), MAX_RUNS),
        RangeProblem::TooMany { count, is_exact: false } => too_many(&format!("more than {count}"), MAX_RUNS),
        RangeProblem::Timetable(error) => error.to_string(),
    }
}

fn too_many(count: &str, max_runs: usize) -> String {
    format!("The range has {count} runs, but one backfill creates at most {max_runs}: split it into several backfills.")
}

/// `GET /api/lite/backfills/{id}/outcome`: how many dates got a run and why others did not, as counts and as text.
pub async fn outcome(Datastore(client): Datastore, Segments(id): Segments<i64>) -> JsonResult<Value> {
    let (created, skipped) = backfills::outcome(&*client, id).await.map_err(to_api_error)?;
    let mut summary =
        if created == 0 { "no runs were created".to_owned() } else { format!("{} created", counted(created, "run")) };
    for (reason, count) in &skipped {
        let (have, them) = if *count == 1 { ("has", "it") } else { ("have", "them") };
        let reason_text = match reason.as_str() {
            "already exists" => format!("already {have} a run (choose a reprocess behavior to rerun {them})"),
            "in flight" => format!("{have} a run that has not finished"),
            other => other.to_owned(),
        };
        summary.push_str(&format!("; {} {reason_text}", counted(count, "date")));
    }
    let skipped: Map<String, Value> = skipped.into_iter().map(|(reason, count)| (reason, count.into())).collect();
    Ok(Json(json!({"made": created, "left": skipped, "summary": summary})))
}

pub async fn create(State(state): Shared, Body(body): Body<BackfillPostBody>) -> JsonResult<BackfillResponse> {
    let (requested_version, drains) = (body.run_on_latest_version, body.drain_dag);
    let mut request: BackfillRequest = body.into();
    let client = state.core.database.get().await?;
    let dag = dags::get(&*client, &request.dag_id).await.map_err(to_api_error)?;
    request.version = rerun_version::of_dag(&state, &dag, requested_version, VersionChoice::Newest).await?;
    backfills::check(&*client, &dag, &request).await.map_err(to_api_error)?;
    // The timetable's code may be slow, so no pooled connection is held while it runs.
    drop(client);
    let planned_runs = planned_runs(&state.dag_code, &dag, &request).await?;
    let max_runs = MAX_INSTANCES / dag.structure.tasks.len().max(1);
    if planned_runs.len() > max_runs {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            too_many(&planned_runs.len().to_string(), max_runs),
        ));
    }
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let user = state.auth.admin_email();
    let created = backfills::create(&transaction, &dag, &request, &planned_runs, &user).await.map_err(to_api_error)?;
    if drains {
        dags::set_scheduling(&transaction, &dag.dag_id, Scheduling::Draining).await?;
    }
    transaction.commit().await?;
    Ok(Json(view(created)))
}

/// A run that the timetable has in the backfill's range. It may exist already.
#[derive(Serialize, JsonSchema)]
pub struct DryRunBackfillResponse {
    logical_date: Option<Stamp>,
    partition_key: Option<String>,
    partition_date: Option<Stamp>,
}

collection! { DryRunBackfillCollectionResponse { backfills: DryRunBackfillResponse } }

pub async fn dry_run(
    State(state): Shared,
    Body(body): Body<BackfillPostBody>,
) -> JsonResult<DryRunBackfillCollectionResponse> {
    let request: BackfillRequest = body.into();
    let client = state.core.database.get().await?;
    let dag = dags::get(&*client, &request.dag_id).await.map_err(to_api_error)?;
    match backfills::check(&*client, &dag, &request).await {
        // A backfill already under way does not prevent a dry run.
        Ok(()) | Err(StoreError::Busy(_)) => {}
        Err(error) => return Err(to_api_error(error)),
    }
    drop(client);
    let planned_runs = planned_runs(&state.dag_code, &dag, &request).await?;
    let date = |info: &Info| DryRunBackfillResponse {
        logical_date: info.logical_date().map(Stamp),
        partition_key: info.partition.as_ref().map(|partition| partition.key.clone()),
        partition_date: info.partition.as_ref().and_then(|partition| partition.date).map(Stamp),
    };
    Ok(Json(planned_runs.iter().map(date).collect()))
}

query! { pub BackfillsQuery(FIELDS) { Parameter::new("dag_id", Kind::Text) } }

pub async fn list(
    Datastore(client): Datastore,
    params: QueryParams<BackfillsQuery>,
) -> JsonResult<BackfillCollectionResponse> {
    let mut listing = params.listing(&FIELDS)?;
    listing.filter.dag_id = params.text("dag_id").map(str::to_owned);
    let page = backfills::list(&*client, listing).await?;
    Ok(Json(page.map(view).into()))
}

pub async fn get(Datastore(client): Datastore, Segments(id): Segments<u32>) -> JsonResult<BackfillResponse> {
    Ok(Json(view(backfills::get(&*client, id.into()).await.map_err(to_api_error)?)))
}

async fn change(state: &AppState, id: i64, requested: Change) -> JsonResult<BackfillResponse> {
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let changed = backfills::change(&transaction, id, requested).await.map_err(to_api_error)?;
    transaction.commit().await?;
    Ok(Json(view(changed)))
}

pub async fn pause(State(state): Shared, Segments(id): Segments<u32>) -> JsonResult<BackfillResponse> {
    change(&state, id.into(), Change::Pause).await
}

pub async fn unpause(State(state): Shared, Segments(id): Segments<u32>) -> JsonResult<BackfillResponse> {
    change(&state, id.into(), Change::Unpause).await
}

pub async fn cancel(State(state): Shared, Segments(id): Segments<u32>) -> JsonResult<BackfillResponse> {
    change(&state, id.into(), Change::Cancel).await
}

const RUN_FIELDS: Fields<BackfillRunField> = Fields {
    order: &[
        ("id", BackfillRunField::Ordinal),
        ("sort_ordinal", BackfillRunField::Ordinal),
        ("logical_date", BackfillRunField::LogicalDate),
    ],
    default_order: &["sort_ordinal"],
    ..Fields::NONE
};

query! { pub BackfillRunsQuery(RUN_FIELDS) }

view! {
    /// A date of a backfill, with its run.
    pub struct BackfillDagRunResponse;
    fn run_view(run: BackfillRun) {
        #[schemars(range(min = 0))]
        id: i64 = i64::from(run.ordinal),
        #[schemars(range(min = 0))]
        backfill_id: i64,
        dag_id: String,
        dag_run_id: Option<String> = run.run_id,
        logical_date: Option<Stamp> = run.logical_date.map(Stamp),
        partition_key: Option<String>,
        sort_ordinal: i32 = run.ordinal,
        exception_reason: Option<String>,
        dag_run_state: Option<RunState> = run.state,
    }
}

collection! { BackfillDagRunCollectionResponse { backfill_dag_runs: BackfillDagRunResponse } }

pub async fn runs(
    Datastore(client): Datastore,
    Segments(id): Segments<u64>,
    params: QueryParams<BackfillRunsQuery>,
) -> JsonResult<BackfillDagRunCollectionResponse> {
    let id = i64::try_from(id).unwrap_or(i64::MAX);
    backfills::get(&*client, id).await.map_err(to_api_error)?;
    let mut listing = params.listing(&RUN_FIELDS)?;
    listing.filter = BackfillRunFilter { backfill_id: Some(id) };
    let page = backfills::runs(&*client, listing).await?;
    Ok(Json(page.map(run_view).into()))
}
