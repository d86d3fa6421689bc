//! Lists of `/api/v2/dags/{dag_id}/dagRuns`, by query or by body, with Airflow's names and shapes.

use crate::api::dag::dags as dag_lists;
use crate::api::prelude::*;
use crate::api::views::{self, DAGRunCollectionResponse};
use crate::http::listing::{PageLimit, PageOffset, batch_body};
use crate::http::openapi::operation::Input;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::civil::Date;
use leoflow_engine::store::dag::dags::{self, Dag};
use leoflow_engine::store::run::runs::{self, RunField, RunFilter};

const FIELDS: Fields<RunField> = Fields {
    order: &[
        ("id", RunField::QueuedAt),
        ("state", RunField::State),
        ("dag_id", RunField::DagId),
        ("run_id", RunField::RunId),
        ("dag_run_id", RunField::RunId),
        ("logical_date", RunField::LogicalDate),
        ("partition_date", RunField::PartitionDate),
        ("run_after", RunField::RunAfter),
        ("start_date", RunField::StartDate),
        ("end_date", RunField::EndDate),
        ("updated_at", RunField::UpdatedAt),
        ("conf", RunField::Conf),
        ("duration", RunField::Duration),
    ],
    default_order: &["id"],
    has_cursor: true,
    patterns: &[
        ("run_id", RunField::RunId),
        ("dag_id", RunField::DagId),
        ("triggering_user_name", RunField::TriggeringUser),
        ("partition_key", RunField::PartitionKey),
    ],
    ranges: &[
        ("run_after", RunField::RunAfter),
        ("logical_date", RunField::LogicalDate),
        ("start_date", RunField::StartDate),
        ("end_date", RunField::EndDate),
        ("updated_at", RunField::UpdatedAt),
        ("duration", RunField::Duration),
    ],
    exact: &[],
    one_of: &[("state", RunField::State), ("run_type", RunField::RunType), ("dag_version", RunField::VersionNumber)],
    in_body: &[("dag_ids", RunField::DagId)],
};

query! {
    pub RunsQuery(FIELDS) {
        Parameter::new("conf_contains", Kind::Text),
        Parameter::new("bundle_version", Kind::Text),
        Parameter::new("consuming_asset_pattern", Kind::Text),
        Parameter::new("partition_date_gte", Kind::Date),
        Parameter::new("partition_date_lte", Kind::Date),
        Parameter::new("tags", Kind::Texts),
        Parameter::new("tags_match_mode", Kind::OneOf(&["any", "all"])),
        Parameter::new("teams", Kind::Texts),
    }
}

/// Builds the listing for a query or a body.
fn run_listing(params: &Params) -> ApiResult<Listing<RunField>> {
    check_states(&params.texts("state"), &RunState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>())?;
    let mut listing = params.listing_with_cursor(&FIELDS, RunField::QueuedAt)?;
    listing.test(RunField::BundleVersion, FieldTest::OneOf(params.texts("bundle_version")));
    listing.filter.tags = dag_lists::tags(params)?;
    listing.filter.conf_contains = params.text("conf_contains").map(str::to_owned);
    listing.filter.consumed_asset = params.text("consuming_asset_pattern").map(str::to_owned);
    Ok(listing)
}

/// Returns `None` for `~`, Airflow's wildcard for all ids.
pub fn specific_id(id: &str) -> Option<&str> {
    (id != "~").then_some(id)
}

pub fn check_states(states: &[String], known: &[&str]) -> ApiResult<()> {
    if states.iter().all(|state| known.contains(&state.as_str()) || ["none", "no_status"].contains(&state.as_str())) {
        return Ok(());
    }
    let detail = format!("Invalid value for state. Valid values are {}", known.join(", "));
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

pub async fn list(
    Datastore(client): Datastore,
    Id(dag_id): Id,
    params: QueryParams<RunsQuery>,
) -> JsonResult<DAGRunCollectionResponse> {
    let mut listing = run_listing(&params)?;
    let (from, to) = (params.date("partition_date_gte")?, params.date("partition_date_lte")?);
    if let Some(dag_id) = specific_id(&dag_id) {
        let dag = dags::get(&*client, dag_id).await?;
        listing.filter.dag_id = Some(dag_id.to_owned());
        add_partition_dates(&dag, from, to, &mut listing.filter)?;
    } else if from.or(to).is_some() {
        let detail = "partition_date_gte and partition_date_lte require a specific dag_id.";
        return Err(ApiError::bad_request(detail));
    }
    let page = runs::list(&*client, listing).await?;
    Ok(Json(page.map(views::run).into()))
}

/// Adds bounds of the partition date, as whole days in the timetable's timezone; `to` is included.
fn add_partition_dates(dag: &Dag, from: Option<Date>, to: Option<Date>, filter: &mut RunFilter) -> ApiResult<()> {
    if from.or(to).is_none() {
        return Ok(());
    }
    let timetable = dag.structure.timetable.as_ref().filter(|timetable| timetable.is_partitioned());
    let Some(timetable) = timetable else {
        let detail = format!(
            "Dag with dag_id: '{}' is not partitioned; partition_date_gte and partition_date_lte are not supported.",
            dag.dag_id
        );
        return Err(ApiError::bad_request(detail));
    };
    let zone = timetable.zone_of_partitions();
    let start = |date: Date| date.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()).ok();
    filter.partition_from = from.and_then(start);
    filter.partition_before = to.and_then(|date| date.tomorrow().ok()).and_then(start);
    Ok(())
}

/// Accepts only the path segment `list`: runs and task instances accept no POST by id.
pub struct OnlyList;

impl Input for OnlyList {}

impl<S: Send + Sync> FromRequestParts<S> for OnlyList {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        if parts.uri.path().ends_with("/list") {
            return Ok(Self);
        }
        Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
    }
}

batch_body! {
    DAGRunsBatchBody {
        order_by: Option<String>,
        page_offset: PageOffset,
        page_limit: PageLimit,
        dag_ids: Option<Vec<String>>,
        #[schemars(with = "Option<Vec<Option<RunState>>>")]
        states: Option<Vec<Option<String>>>,
        ..ranges,
        conf_contains: Option<String>,
    }
}

/// Lists the runs of several DAGs, selected by the body.
pub async fn list_by_body(
    State(state): Shared,
    _: OnlyList,
    Segments((dag_id, _)): Segments<(String, String)>,
    Body(body): Body<DAGRunsBatchBody>,
) -> JsonResult<DAGRunCollectionResponse> {
    require_wildcard(&dag_id, "dag_id")?;
    let params = Params::from_body(&body, &[("states", "state")])?;
    let page = runs::list(&*state.core.database.get().await?, run_listing(&params)?).await?;
    Ok(Json(page.map(views::run).into()))
}

/// Requires `~` in the path, since the body selects the ids.
pub fn require_wildcard(id: &str, name: &str) -> ApiResult<()> {
    if specific_id(id).is_none() {
        return Ok(());
    }
    Err(ApiError::unprocessable(&["path", name], "literal_error", "Input should be '~'"))
}
