//! `/api/v2/dags`, with Airflow's names and shapes.

use super::dag_views::{DAGCollectionResponse, DAGDetailsResponse, DAGResponse, dag_response, details_response};
use crate::api::asset::asset_expressions;
use crate::api::prelude::*;
use crate::api::views::BUNDLE;
use crate::history::deleted_logs::DeletedLogs;
use crate::http::openapi::answers::Written;
use crate::http::query::{UPDATE_MASK, UpdateMaskQuery};
use leoflow_base::protocol::task_log;
use leoflow_engine::store::dag::dags::{self, Activity, DagField, Favorite, LatestRun, Scheduling, Tags};
use leoflow_engine::store::list::listing::Page;

const FIELDS: Fields<DagField> = Fields {
    order: &[
        ("dag_id", DagField::DagId),
        ("dag_display_name", DagField::DisplayName),
        ("next_dagrun", DagField::NextInterval),
        ("next_dagrun_create_after", DagField::NextRunAfter),
        ("state", DagField::LastRunState),
        ("last_run_state", DagField::LastRunState),
        ("start_date", DagField::LastRunStart),
        ("last_run_start_date", DagField::LastRunStart),
    ],
    default_order: &["dag_id"],
    patterns: &[("dag_id", DagField::DagId), ("dag_display_name", DagField::DisplayName)],
    ..Fields::NONE
};

const RUN_STATES: &[&str] = &["queued", "running", "success", "failed"];

query! {
    pub DagsQuery(FIELDS) {
        Parameter::new("tags", Kind::Texts),
        Parameter::new("tags_match_mode", Kind::OneOf(&["any", "all"])),
        Parameter::new("owners", Kind::Texts),
        Parameter::new("exclude_stale", Kind::Flag).or("true"),
        Parameter::new("paused", Kind::Flag),
        Parameter::new("has_import_errors", Kind::Flag),
        Parameter::new("last_dag_run_state", Kind::OneOf(RUN_STATES)),
        Parameter::new("bundle_name", Kind::Text),
        Parameter::new("bundle_version", Kind::Text),
        Parameter::new("has_asset_schedule", Kind::Flag),
        Parameter::new("asset_dependency", Kind::Text),
        Parameter::new("dag_run_start_date_gte", Kind::Time),
        Parameter::new("dag_run_start_date_gt", Kind::Time),
        Parameter::new("dag_run_start_date_lte", Kind::Time),
        Parameter::new("dag_run_start_date_lt", Kind::Time),
        Parameter::new("dag_run_end_date_gte", Kind::Time),
        Parameter::new("dag_run_end_date_gt", Kind::Time),
        Parameter::new("dag_run_end_date_lte", Kind::Time),
        Parameter::new("dag_run_end_date_lt", Kind::Time),
        Parameter::new("dag_run_state", Kind::Texts),
        Parameter::new("is_favorite", Kind::Flag),
        Parameter::new("timetable_type", Kind::Texts),
        Parameter::new("is_scheduled", Kind::Flag),
    }
}

/// Builds the listing with the filters that GET and PATCH share.
fn shared_listing(params: &Params, fields: &Fields<DagField>) -> ApiResult<Listing<DagField>> {
    let mut listing = params.listing(fields)?;
    let filter = &mut listing.filter;
    if params.flag("exclude_stale")?.unwrap_or(true) {
        filter.activity = Activity::Active;
    }
    filter.is_paused = params.flag("paused")?;
    filter.tags = tags(params)?;
    filter.owners = params.texts("owners");
    Ok(listing)
}

pub fn tags(params: &Params) -> ApiResult<Option<Tags>> {
    let tags = params.texts("tags");
    match params.text("tags_match_mode") {
        _ if tags.is_empty() => Ok(None),
        Some("all") => Ok(Some(Tags::All(tags))),
        None | Some("any") => Ok(Some(Tags::Any(tags))),
        Some(_) => {
            let message = "Input should be 'any' or 'all'";
            Err(ApiError::unprocessable(&["query", "tags_match_mode"], "literal_error", message))
        }
    }
}

/// Builds the listing for GET, with all filters.
pub fn dag_listing(params: &Params) -> ApiResult<Listing<DagField>> {
    let mut listing = shared_listing(params, &FIELDS)?;
    listing.test(DagField::TimetableType, FieldTest::OneOf(params.texts("timetable_type")));
    listing.test(DagField::BundleVersion, FieldTest::OneOf(params.texts("bundle_version")));
    if params.text("bundle_name").is_some_and(|name| name != BUNDLE) {
        listing.select_none();
    }
    let filter = &mut listing.filter;
    filter.is_favorite = params.flag("is_favorite")?;
    filter.has_import_errors = params.flag("has_import_errors")?;
    filter.last_run_state = params.text("last_dag_run_state").map(str::to_owned);
    filter.is_scheduled = params.flag("is_scheduled")?;
    filter.has_asset_schedule = params.flag("has_asset_schedule")?;
    filter.asset = params.text("asset_dependency").map(str::to_owned);
    // Matches only the latest run of each DAG, as Airflow does.
    filter.latest_run = LatestRun {
        states: params.texts("dag_run_state"),
        since: None,
        start_date: params.times("dag_run_start_date")?,
        end_date: params.times("dag_run_end_date")?,
    };
    Ok(listing)
}

type DagPage = Written<DAGCollectionResponse<'static>>;
type WrittenDag = Written<DAGResponse<'static>>;

pub async fn list(State(state): Shared, params: QueryParams<DagsQuery>) -> ApiResult<DagPage> {
    let listing = dag_listing(&params)?;
    let client = state.core.database.get().await?;
    let page = dags::list(&*client, &state.dag_files.structures, listing).await?;
    let dags = page.rows.iter().map(dag_response).collect();
    Ok(Written::new(DAGCollectionResponse::new(dags, page.total)))
}

pub async fn get(Datastore(client): Datastore, Id(dag_id): Id) -> ApiResult<WrittenDag> {
    Ok(Written::new(dag_response(&dags::get(&*client, &dag_id).await?)))
}

pub async fn details(Datastore(client): Datastore, Id(dag_id): Id) -> ApiResult<Written<DAGDetailsResponse<'static>>> {
    let dag = dags::get(&*client, &dag_id).await?;
    let expression = asset_expressions::resolve(&*client, dag.structure.asset_condition.as_ref()).await?;
    Ok(Written::new(details_response(&dag, dags::active_runs(&*client, &dag_id).await?, expression)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DAGPatchBody {
    #[serde(default)]
    #[schemars(with = "bool")]
    is_paused: Option<bool>,
    #[serde(default)]
    scheduling_state: Option<Scheduling>,
}

impl DAGPatchBody {
    /// Returns the requested state; `is_paused` is its older form.
    pub fn scheduling(&self, mask: &[String]) -> ApiResult<Scheduling> {
        let invalid =
            |message: &str| Err(ApiError::unprocessable(&["body"], "value_error", format!("Value error, {message}")));
        let fields = ["is_paused", "scheduling_state"];
        if mask.iter().any(|name| !fields.contains(&name.as_str())) {
            let detail = "Only `is_paused` and `scheduling_state` fields can be updated through the REST API";
            return Err(ApiError::bad_request(detail));
        }
        let is_masked = |name: &str| mask.is_empty() || mask.iter().any(|masked| masked == name);
        let older = self.is_paused.filter(|_| is_masked("is_paused")).map(Scheduling::from);
        match (self.scheduling_state.filter(|_| is_masked("scheduling_state")), older) {
            (Some(state), Some(older)) if state != older => {
                invalid("is_paused and scheduling_state contradict each other")
            }
            (Some(state), _) | (None, Some(state)) => Ok(state),
            (None, None) => invalid("One of is_paused and scheduling_state must be set"),
        }
    }
}

pub async fn patch(
    Datastore(mut client): Datastore,
    Id(dag_id): Id,
    params: QueryParams<UpdateMaskQuery>,
    Body(body): Body<DAGPatchBody>,
) -> ApiResult<WrittenDag> {
    let scheduling = body.scheduling(&params.texts("update_mask"))?;
    let transaction = client.transaction().await?;
    dags::set_scheduling(&transaction, &dag_id, scheduling).await.map_err(not_found(&dag_id))?;
    let changed = dags::get(&transaction, &dag_id).await?;
    transaction.commit().await?;
    Ok(Written::new(dag_response(&changed)))
}

/// Parameters of a PATCH of several DAGs, which are always ordered by `dag_id`.
const PATCH_FIELDS: Fields<DagField> = Fields { patterns: &[("dag_id", DagField::DagId)], ..Fields::NONE };

query! {
    pub PatchDagsQuery(PATCH_FIELDS) {
        UPDATE_MASK,
        Parameter::new("tags", Kind::Texts),
        Parameter::new("tags_match_mode", Kind::OneOf(&["any", "all"])),
        Parameter::new("owners", Kind::Texts),
        Parameter::new("exclude_stale", Kind::Flag).or("true"),
        Parameter::new("paused", Kind::Flag),
    }
}

/// Pauses or unpauses all DAGs that match a pattern; without a pattern nothing changes.
pub async fn patch_several(
    State(state): Shared,
    params: QueryParams<PatchDagsQuery>,
    Body(body): Body<DAGPatchBody>,
) -> ApiResult<DagPage> {
    let scheduling = body.scheduling(&params.texts("update_mask"))?;
    // Airflow ignores these filters, and so changes more DAGs than intended.
    params.refuse_params_of::<DagsQuery>()?;
    let mut listing = shared_listing(&params, &PATCH_FIELDS)?;
    if params.text("dag_id_pattern").or(params.text("dag_id_prefix_pattern")).is_none() {
        listing.select_none();
    }
    let Page { limit, offset } = std::mem::take(&mut listing.page);
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let mut page = dags::list(&transaction, &state.dag_files.structures, listing).await?;
    for dag in &mut page.rows {
        dags::set_scheduling(&transaction, &dag.dag_id, scheduling).await?;
        *dag = dags::get(&transaction, &dag.dag_id).await?;
    }
    transaction.commit().await?;
    let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
    let shown_dags = page.rows.iter().skip(number(offset)).take(limit.map_or(usize::MAX, number));
    Ok(Written::new(DAGCollectionResponse::new(shown_dags.map(dag_response).collect(), page.total)))
}

/// 404 of routes that change a DAG; Airflow words it differently for routes that read it.
fn not_found(dag_id: &str) -> impl FnOnce(StoreError) -> ApiError {
    ApiError::or_not_found(move || format!("Dag with id: {dag_id} was not found"))
}

pub async fn delete(State(state): Shared, Id(dag_id): Id) -> ApiResult<NoContent> {
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    dags::delete(&transaction, &dag_id).await.map_err(not_found(&dag_id))?;
    let logs = DeletedLogs::quarantine(&state.core.home, task_log::folder_of_dag(&state.core.home, &dag_id)).await;
    transaction.commit().await?;
    logs.remove();
    // Every DAG file is parsed again, because one may still define the DAG.
    state.dag_files.dag_deleted.notify_one();
    Ok(NoContent)
}

/// 404 of the routes about favorites.
fn favorite_not_found(dag_id: &str) -> impl FnOnce(StoreError) -> ApiError {
    ApiError::or_not_found(move || format!("Dag with id '{dag_id}' not found"))
}

pub async fn favorite(Datastore(client): Datastore, Id(dag_id): Id) -> ApiResult<NoContent> {
    dags::set_favorite(&*client, &dag_id, Favorite::Yes).await.map_err(favorite_not_found(&dag_id))?;
    Ok(NoContent)
}

pub async fn unfavorite(Datastore(client): Datastore, Id(dag_id): Id) -> ApiResult<NoContent> {
    if !dags::get(&*client, &dag_id).await.map_err(favorite_not_found(&dag_id))?.is_favorite {
        return Err(ApiError::conflict("Dag is not marked as favorite"));
    }
    dags::set_favorite(&*client, &dag_id, Favorite::No).await?;
    Ok(NoContent)
}
