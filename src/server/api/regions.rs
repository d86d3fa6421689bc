//! `region_id` and `region_index`, which name an instance from Airflow 3.4 on. A region is an iteration of a loop, which
//! Leoflow does not have: all instances are in the one region outside of loops, with their map index as the index.

use super::Routes;
use crate::api::prelude::*;
use crate::http::openapi::operation::Input;
use crate::http::openapi::routes::Entry;
use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use leoflow_engine::model::keys::NOT_MAPPED;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The id of the region outside of loops.
pub const OUTSIDE: &str = "00000000-0000-0000-0000-000000000000";

/// True for an operation that takes a region in its query.
fn takes_region(entry: &Entry) -> bool {
    // These have the region in their body.
    const IN_BODY: [&str; 4] =
        ["bulk_task_instances", "create_xcom_entry", "get_task_instances_batch", "update_xcom_entry"];
    let is_about_instances = ["/taskInstances", "/taskGroupInstances", "/hitlDetails", "/eventLogs"];
    is_about_instances.iter().any(|part| entry.path.contains(part))
        && !IN_BODY.contains(&entry.id)
        && entry.id != "get_event_log"
}

/// Routes whose operations take a region where Airflow's do.
pub fn accepted_by(mut routes: Routes) -> Routes {
    for entry in &mut routes.entries {
        entry.takes_region = takes_region(entry);
    }
    routes.router = routes.router.layer(from_fn(translate));
    routes
}

/// Replaces the region in a query by the map index that it stands for.
async fn translate(mut request: Request, next: Next) -> ApiResult<Response> {
    if let Some(uri) = translated(request.uri())? {
        *request.uri_mut() = uri;
    }
    Ok(next.run(request).await)
}

fn translated(uri: &Uri) -> ApiResult<Option<Uri>> {
    // The operation refuses a query that cannot be decoded.
    let Ok(params) = Params::from_query(uri) else { return Ok(None) };
    let is_region = |name: &str| ["region_id", "region_index"].contains(&name);
    if !params.names().any(is_region) {
        return Ok(None);
    }
    // The path of an instance of a mapped task has the index after the task's id.
    let in_path = uri.path().split_once("/taskInstances/").and_then(|(_, rest)| rest.split('/').nth(1)?.parse().ok());
    let named = in_path.or(params.integer("map_index")?);
    let index = map_index("query", params.text("region_id"), params.integer("region_index")?, named)?;
    let index_text = index.map(|index| index.to_string());
    let rest = params.pairs().filter(|(name, _)| !is_region(name) && (*name != "map_index" || index.is_none()));
    let pairs = rest.chain(index_text.as_deref().map(|text| ("map_index", text)));
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_');
    let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let query: Vec<String> = pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let path_and_query = format!("{}?{}", uri.path(), query.join("&"));
    path_and_query.parse().map(Some).map_err(|error| ApiError::internal(&error))
}

/// The map index that the region of a query stands for; not mapped without a region. For operations whose query names no
/// map index.
pub struct Region(pub i32);

impl<S: Send + Sync> FromRequestParts<S> for Region {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self(params.map_index()?.unwrap_or(NOT_MAPPED)))
    }
}

impl Input for Region {}

/// Returns the map index that a region and a map index name together; `None` if neither is given. `location` is `query`
/// or `body`.
pub fn map_index(
    location: &'static str,
    region_id: Option<&str>,
    region_index: Option<i32>,
    map_index: Option<i32>,
) -> ApiResult<Option<i32>> {
    if let Some(id) = region_id {
        let digits: Vec<char> = id.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.iter().all(char::is_ascii_hexdigit) {
            let message = "Input should be a valid UUID";
            return Err(ApiError::unprocessable(&[location, "region_id"], "uuid_parsing", message));
        }
        if digits.iter().any(|digit| *digit != '0') {
            return Err(ApiError::not_found(format!("The region {id} does not exist: no task here is in a loop")));
        }
    }
    match (region_index, map_index) {
        (Some(region), Some(index)) if region != index => {
            Err(ApiError::bad_request("map_index and region_index must identify the same stored index"))
        }
        (region, index) => Ok(region.or(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Option<String>, StatusCode> {
        let uri = format!("/a?{text}").parse().unwrap();
        let translated = translated(&uri).map_err(|error| error.status())?;
        Ok(translated.map(|uri| uri.to_string().split_once('?').unwrap().1.to_owned()))
    }

    #[test]
    fn a_region_becomes_a_map_index() {
        assert_eq!(query("limit=5"), Ok(None));
        assert_eq!(query(&format!("region_id={OUTSIDE}&limit=5")), Ok(Some("limit=5".to_owned())));
        assert_eq!(query("region_index=3&state=a%26b"), Ok(Some("state=a%26b&map_index=3".to_owned())));
        assert_eq!(query("region_index=3&map_index=3"), Ok(Some("map_index=3".to_owned())));
        assert_eq!(query("region_index=3&map_index=4"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(query("region_id=0193f2b0-0000-7000-8000-000000000001"), Err(StatusCode::NOT_FOUND));
        assert_eq!(query("region_id=x"), Err(StatusCode::UNPROCESSABLE_ENTITY));
        let in_path = "/dags/d/dagRuns/r/taskInstances/t/3/tries?region_index=4".parse().unwrap();
        assert!(translated(&in_path).is_err());
    }
}
