//! `region_id` and `region_index`, which name an instance from Airflow 3.4 on. Outside of loops the region is [`OUTSIDE`]
//! and the index is the map index. The loops of a run are a region whose index is the iteration; there, the instances of a
//! mapped task are a region in each iteration, with their map index as the index.

use super::Routes;
use crate::api::prelude::*;
use crate::http::openapi::operation::Input;
use crate::http::openapi::routes::Entry;
use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use leoflow_engine::model::keys::{InstanceKey, NOT_MAPPED, Position, RunKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The id of the region outside of loops.
pub const OUTSIDE: &str = "00000000-0000-0000-0000-000000000000";
/// Marks the ids of other regions, which end in 16 bits: 0 for the loops of a run, otherwise the iteration plus 1.
const MARK: u16 = 0x8000 | (b'L' as u16);

/// The id of the region of the loops in a run.
pub fn of_loops(run: &RunKey) -> String {
    region_id(&[&run.dag_id, &run.run_id], 0)
}

fn region_id(names: &[&str], last: u16) -> String {
    let hash = Sha256::digest(names.join("\0").as_bytes());
    let hex = hex::encode(&hash[..12]);
    // The version 8 of RFC 9562 leaves all other bits to us.
    format!("{}-{}-{MARK:04x}-8{}-{}{last:04x}", &hex[..8], &hex[8..12], &hex[12..15], &hex[15..23])
}

/// The region of an instance and its index there.
pub fn of_instance(InstanceKey { run, task_id, position }: &InstanceKey) -> (String, i32) {
    match (position.iteration(), position.map_index()) {
        (None, map_index) => (OUTSIDE.to_owned(), map_index),
        (Some(iteration), NOT_MAPPED) => (of_loops(run), iteration),
        (Some(iteration), map_index) => {
            let last = u16::try_from(iteration + 1).unwrap_or_default();
            (region_id(&[&run.dag_id, &run.run_id, task_id], last), map_index)
        }
    }
}

/// The last 16 bits of the id of a region in a loop; `None` for any other id. `digits` are its 32 hexadecimal digits.
fn last_of(digits: &str) -> Option<i32> {
    let part = |range| u16::from_str_radix(digits.get(range)?, 16).ok();
    (part(12..16)? == MARK).then(|| part(28..32)).flatten().map(i32::from)
}

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

/// Replaces the region in a query by the position that it stands for, as its stored integer.
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
    let index = position("query", params.text("region_id"), params.integer("region_index")?, named)?;
    let index_text = index.map(|index| index.stored().to_string());
    let rest = params.pairs().filter(|(name, _)| !is_region(name) && (*name != "map_index" || index.is_none()));
    let pairs = rest.chain(index_text.as_deref().map(|text| ("map_index", text)));
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_');
    let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let query: Vec<String> = pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let path_and_query = format!("{}?{}", uri.path(), query.join("&"));
    path_and_query.parse().map(Some).map_err(|error| ApiError::internal(&error))
}

/// The position that the region of a query stands for; that of the only instance without a region. For operations whose
/// query names no map index.
pub struct Region(pub Position);

impl<S: Send + Sync> FromRequestParts<S> for Region {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self(params.position()?.unwrap_or(Position::ONLY)))
    }
}

impl Input for Region {}

/// Returns the position that a region and a map index name together; `None` if neither is given. `location` is `query`
/// or `body`.
pub fn position(
    location: &'static str,
    region_id: Option<&str>,
    region_index: Option<i32>,
    map_index: Option<i32>,
) -> ApiResult<Option<Position>> {
    if let Some(id) = region_id {
        let digits: String = id.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            let message = "Input should be a valid UUID";
            return Err(ApiError::unprocessable(&[location, "region_id"], "uuid_parsing", message));
        }
        if digits.chars().any(|digit| digit != '0') {
            let unknown = || ApiError::not_found(format!("The region {id} does not exist"));
            let last = last_of(&digits).ok_or_else(unknown)?;
            let incomplete = || ApiError::bad_request("region_id and region_index must be supplied together");
            let index = region_index.or(map_index).ok_or_else(incomplete)?;
            return match last {
                0 => Position::checked(Some(index), NOT_MAPPED),
                last => Position::checked(Some(last - 1), index).filter(|_| index != NOT_MAPPED),
            }
            .map(Some)
            .ok_or_else(unknown);
        }
    }
    match (region_index, map_index) {
        (Some(region), Some(index)) if region != index => {
            Err(ApiError::bad_request("map_index and region_index must identify the same stored index"))
        }
        (region, index) => Ok(region.or(index).map(Position::mapped)),
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

    #[test]
    fn a_region_of_a_loop_becomes_a_position() {
        let run = RunKey { dag_id: "d".to_owned(), run_id: "r".to_owned() };
        let positions =
            [(0, -1), (7, -1), (2, 0), (2, 5)].map(|(iteration, index)| Position::in_loop(iteration, index));
        for position in positions {
            let (id, index) = of_instance(&InstanceKey::new(run.clone(), "t", position));
            for path in ["/a", "/dags/d/dagRuns/r/taskInstances/t/-1/tries"] {
                let uri = format!("{path}?region_id={id}&region_index={index}").parse().unwrap();
                let uri = translated(&uri).map_err(|error| error.status()).unwrap().unwrap();
                let params = Params::from_query(&uri).map_err(|error| error.status()).unwrap();
                assert_eq!(params.position().map_err(|error| error.status()), Ok(Some(position)), "{id}");
            }
            assert_eq!(query(&format!("region_id={id}")), Err(StatusCode::BAD_REQUEST));
        }
    }
}
