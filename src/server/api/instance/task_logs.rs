//! `…/logs/{try_number}`, with Airflow's shape.

use super::log_body::{self, Format, LogBody, Position, StructuredLogMessage, Writing};
use super::task_instances::MapIndexQuery;
use crate::api::instance_path::instance_key_from_query;
use crate::api::prelude::*;
use crate::http::openapi::answers::{Either, Lines, Media};
use crate::http::openapi::operation::JSON;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use leoflow_base::sys::blocking;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::instance::instances;
use std::num::NonZeroU32;

/// Maximum bytes of the log in one response; the client requests the rest with the continuation token.
const MAX_CHUNK_BYTES: u64 = 512 * 1024;

query! {
    pub LogQuery {
        Parameter::new("full_content", Kind::Flag).or("false"),
        Parameter::new("map_index", Kind::Whole).or("-1"),
        Parameter::new("token", Kind::Text),
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "Airflow may also return plain lines")]
enum Content {
    Messages(Vec<StructuredLogMessage>),
    Lines(Vec<String>),
}

#[derive(Serialize, JsonSchema)]
pub struct TaskInstancesLogResponse {
    content: Content,
    continuation_token: Option<String>,
}

pub type Log = Either<TaskInstancesLogResponse, Lines>;

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, try_number)): Segments<(String, String, String, u32)>,
    params: QueryParams<LogQuery>,
    headers: HeaderMap,
) -> ApiResult<Log> {
    let as_lines = accepts_lines(&headers)?;
    let try_number = i32::try_from(try_number).unwrap_or(i32::MAX);
    let position = position(&params)?;
    let key = TryKey { instance: instance_key_from_query((dag_id, run_id, task_id), &params)?, try_number };
    let client = state.core.database.get().await?;
    let not_found = || "TaskInstance not found".to_owned();
    let instance = instances::get(&*client, &key.instance).await.map_err(ApiError::or_not_found(not_found))?;
    let is_newest = instance.try_number == try_number;
    if !is_newest && !instances::has_try(&*client, &key).await? {
        return Err(ApiError::not_found(not_found()));
    }
    drop(client);
    if try_number == 0 {
        return Ok(respond(as_lines, vec![message(why_there_is_no_log(instance.state))]));
    }
    let path = key.log_path(&state.core.home);
    let is_whole = as_lines || params.flag("full_content")?.unwrap_or(false);
    let limit = if is_whole { u64::MAX } else { MAX_CHUNK_BYTES };
    let is_running = is_newest && matches!(instance.state, Some(TaskState::Running | TaskState::Restarting));
    let writing = if is_running { Writing::Ongoing } else { Writing::Ended };
    let (format, media_type) = if as_lines { (Format::Lines, Lines::TYPE) } else { (Format::Document, JSON) };
    let body = blocking::run(move || LogBody::open(&path, position, limit, writing, format)?.next_piece()).await;
    let (first, rest) = body
        .map_err(|error| ApiError::internal(&error))?
        .map_err(|error| ApiError::internal(&format!("cannot read the log: {error}")))?;
    let pieces = log_body::stream(first, rest);
    Ok(Either::text(([(header::CONTENT_TYPE, media_type)], Body::from_stream(pieces))))
}

/// Returns true if the client prefers NDJSON over one JSON document; 406 if it accepts neither.
pub fn accepts_lines(headers: &HeaderMap) -> ApiResult<bool> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    let as_lines = accept.starts_with("application/x-ndjson");
    if !as_lines && !accept.starts_with("*/*") && !accept.contains("application/json") {
        let detail = "Only application/json or application/x-ndjson is supported";
        return Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, detail));
    }
    Ok(as_lines)
}

/// Parses the continuation token; without one, the response starts with the log.
fn position(params: &Params) -> ApiResult<Position> {
    let Some(token) = params.text("token") else { return Ok(Position::default()) };
    let detail = "Bad Signature. Please use only the tokens provided by the API.";
    Position::parse(token).ok_or_else(|| ApiError::bad_request(detail))
}

/// Returns the line to show instead of a log for an instance in `state` that has not started.
fn why_there_is_no_log(state: Option<TaskState>) -> &'static str {
    match state {
        Some(TaskState::Skipped) => "Task was skipped — no logs available.",
        Some(TaskState::UpstreamFailed) => "Task did not run because upstream task(s) failed.",
        _ => "No logs available for this task.",
    }
}

/// A line of a log without a time.
pub fn message(text: &str) -> StructuredLogMessage {
    StructuredLogMessage { timestamp: None, event: text.to_owned(), others: Map::new() }
}

/// Returns a whole log.
pub fn respond(as_lines: bool, messages: Vec<StructuredLogMessage>) -> Log {
    if as_lines {
        let lines = messages.iter().map(|message| serde_json::to_string(message).unwrap_or_default() + "\n");
        return Either::text(([(header::CONTENT_TYPE, Lines::TYPE)], lines.collect::<String>()));
    }
    Either::json(TaskInstancesLogResponse { content: Content::Messages(messages), continuation_token: None })
}

#[derive(Serialize, JsonSchema)]
pub struct ExternalLogUrlResponse {
    url: String,
}

/// Always 400: logs are stored locally, not in an external service.
pub async fn external_url(
    _: Segments<(String, String, String, NonZeroU32)>,
    _: QueryParams<MapIndexQuery>,
) -> JsonResult<ExternalLogUrlResponse> {
    Err(ApiError::bad_request("Task log handler does not support external logs."))
}
