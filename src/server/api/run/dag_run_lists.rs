//! Lists of `/api/v2/dags/{dag_id}/dagRuns`, by query or by body, with Airflow's names and shapes.

use crate::api::views::{self, DAGRunCollectionResponse};
use crate::http::api_error::ApiError;
use crate::http::body::{Body, maybe_lax};
use crate::http::listing::{Fields, PageLimit, PageOffset, escape_like};
use crate::http::openapi::operation::Input;
use crate::http::query::{Kind, Parameter, Query, QueryParams};
use crate::http::request::{Params, Segments};
use crate::process::state::AppState;
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use jiff::civil::Date;
use leoflow_engine::model::state::RunState;
use leoflow_engine::store::dag::dags::{self, Dag};
use leoflow_engine::store::list::listing::{Column, Listing};
use leoflow_engine::store::run::runs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const QUEUED_AT: Column = Column::time("r.queued_at");
const UPDATED_AT: Column = Column::time("greatest(r.queued_at, r.start_date, r.end_date)");
const DURATION: Column = Column::number("extract(epoch FROM r.end_date - r.start_date)::float8");
const FIELDS: Fields = Fields {
    order: &[
        ("id", QUEUED_AT),
        ("state", Column::text("r.state")),
        ("dag_id", Column::text("r.dag_id")),
        ("run_id", Column::text("r.run_id")),
        ("dag_run_id", Column::text("r.run_id")),
        ("logical_date", Column::time("r.logical_date")),
        ("partition_date", Column::time("r.partition_date")),
        ("run_after", Column::time("r.run_after")),
        ("start_date", Column::time("r.start_date")),
        ("end_date", Column::time("r.end_date")),
        ("updated_at", UPDATED_AT),
        ("conf", Column::text("r.conf::text")),
        ("duration", DURATION),
    ],
    default_order: &["id"],
    has_cursor: true,
    patterns: &[
        ("run_id", "r.run_id"),
        ("dag_id", "r.dag_id"),
        ("triggering_user_name", "r.triggering_user_name"),
        ("partition_key", "r.partition_key"),
    ],
    ranges: &[
        ("run_after", Column::time("r.run_after")),
        ("logical_date", Column::time("r.logical_date")),
        ("start_date", Column::time("r.start_date")),
        ("end_date", Column::time("r.end_date")),
        ("updated_at", UPDATED_AT),
        ("duration", DURATION),
    ],
    exact: &[],
    one_of: &[
        ("state", Column::text("r.state")),
        ("run_type", Column::text("r.run_type")),
        ("dag_version", Column::whole("v.version_number")),
    ],
    in_body: &[("dag_ids", Column::text("r.dag_id"))],
};

pub struct RunsQuery;

impl Query for RunsQuery {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[
        Parameter::new("conf_contains", Kind::Text),
        Parameter::new("bundle_version", Kind::Text),
        Parameter::new("consuming_asset_pattern", Kind::Text),
        Parameter::new("partition_date_gte", Kind::Date),
        Parameter::new("partition_date_lte", Kind::Date),
    ];
}

/// Builds the listing for a query or a body.
fn run_listing(params: &Params) -> Result<Listing, ApiError> {
    check_states(&params.texts("state"), &RunState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>())?;
    let mut listing = params.listing_with_cursor(&FIELDS, QUEUED_AT, runs::KEY)?;
    let conditions = &mut listing.conditions;
    conditions.maybe("r.conf::text LIKE {}", params.text("conf_contains").map(|text| format!("%{text}%")));
    // There is one bundle, and it has no versions.
    conditions.maybe("{}::text IS NULL", params.text("bundle_version").map(str::to_owned));
    let asset = "EXISTS (SELECT FROM dag_run_asset_event c JOIN asset_event e ON e.id = c.event_id
                             JOIN asset a ON a.id = e.asset_id
                             WHERE c.dag_id = r.dag_id AND c.run_id = r.run_id AND (a.name ILIKE {} OR a.uri ILIKE {}))";
    if let Some(text) = params.text("consuming_asset_pattern") {
        let pattern = format!("%{}%", escape_like(text));
        conditions.add(asset, vec![Box::new(pattern.clone()), Box::new(pattern)]);
    }
    Ok(listing)
}

/// Returns `None` for `~`, Airflow's wildcard for all ids.
pub fn specific_id(id: &str) -> Option<&str> {
    (id != "~").then_some(id)
}

pub fn check_states(states: &[String], known: &[&str]) -> Result<(), ApiError> {
    if states.iter().all(|state| known.contains(&state.as_str()) || ["none", "no_status"].contains(&state.as_str())) {
        return Ok(());
    }
    let detail = format!("Invalid value for state. Valid values are {}", known.join(", "));
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

pub async fn list(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: QueryParams<RunsQuery>,
) -> Result<Json<DAGRunCollectionResponse>, ApiError> {
    let mut listing = run_listing(&params)?;
    let client = state.database.get().await?;
    let (from, to) = (params.date("partition_date_gte")?, params.date("partition_date_lte")?);
    if let Some(dag_id) = specific_id(&dag_id) {
        let dag = dags::get(&*client, dag_id).await?;
        listing.conditions.with("r.dag_id = {}", dag_id.to_owned());
        add_partition_dates(&dag, from, to, &mut listing)?;
    } else if from.or(to).is_some() {
        let detail = "partition_date_gte and partition_date_lte require a specific dag_id.";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let page = runs::list(&*client, listing).await?;
    Ok(Json(page.map(views::run).into()))
}

/// Adds bounds of the partition date, as whole days in the timetable's timezone; `to` is included.
fn add_partition_dates(dag: &Dag, from: Option<Date>, to: Option<Date>, listing: &mut Listing) -> Result<(), ApiError> {
    if from.or(to).is_none() {
        return Ok(());
    }
    let timetable = dag.structure.timetable.as_ref().filter(|timetable| timetable.is_partitioned());
    let Some(timetable) = timetable else {
        let detail = format!(
            "Dag with dag_id: '{}' is not partitioned; partition_date_gte and partition_date_lte are not supported.",
            dag.dag_id
        );
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    };
    let zone = timetable.zone_of_partitions();
    let start = |date: Date| date.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()).ok();
    listing.conditions.maybe("r.partition_date >= {}", from.and_then(start));
    listing.conditions.maybe("r.partition_date < {}", to.and_then(|date| date.tomorrow().ok()).and_then(start));
    Ok(())
}

/// Accepts only the path segment `list`: runs and task instances accept no POST by id.
pub struct OnlyList;

impl Input for OnlyList {}

impl<S: Send + Sync> FromRequestParts<S> for OnlyList {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if parts.uri.path().ends_with("/list") {
            return Ok(Self);
        }
        Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DAGRunsBatchBody {
    order_by: Option<String>,
    page_offset: PageOffset,
    page_limit: PageLimit,
    dag_ids: Option<Vec<String>>,
    #[schemars(with = "Option<Vec<Option<RunState>>>")]
    states: Option<Vec<Option<String>>>,
    run_after_gte: Option<Timestamp>,
    run_after_gt: Option<Timestamp>,
    run_after_lte: Option<Timestamp>,
    run_after_lt: Option<Timestamp>,
    logical_date_gte: Option<Timestamp>,
    logical_date_gt: Option<Timestamp>,
    logical_date_lte: Option<Timestamp>,
    logical_date_lt: Option<Timestamp>,
    start_date_gte: Option<Timestamp>,
    start_date_gt: Option<Timestamp>,
    start_date_lte: Option<Timestamp>,
    start_date_lt: Option<Timestamp>,
    end_date_gte: Option<Timestamp>,
    end_date_gt: Option<Timestamp>,
    end_date_lte: Option<Timestamp>,
    end_date_lt: Option<Timestamp>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_gte: Option<f64>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_gt: Option<f64>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_lte: Option<f64>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_lt: Option<f64>,
    conf_contains: Option<String>,
}

/// Lists the runs of several DAGs, selected by the body.
pub async fn list_by_body(
    State(state): Shared,
    _: OnlyList,
    Segments((dag_id, _)): Segments<(String, String)>,
    Body(body): Body<DAGRunsBatchBody>,
) -> Result<Json<DAGRunCollectionResponse>, ApiError> {
    require_wildcard(&dag_id, "dag_id")?;
    let params = Params::from_body(&body, &[("states", "state")])?;
    let page = runs::list(&*state.database.get().await?, run_listing(&params)?).await?;
    Ok(Json(page.map(views::run).into()))
}

/// Requires `~` in the path, since the body selects the ids.
pub fn require_wildcard(id: &str, name: &str) -> Result<(), ApiError> {
    if specific_id(id).is_none() {
        return Ok(());
    }
    Err(ApiError::unprocessable(&["path", name], "literal_error", "Input should be '~'"))
}
