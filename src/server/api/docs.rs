//! The REST API's OpenAPI document, at `/openapi.json` and as a page at `/docs`.

use crate::api::prelude::*;
use crate::http::openapi::document::document;
use crate::pages::page;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use leoflow_base::sys::blocking;
use leoflow_components::web_ui;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tokio::sync::OnceCell;

/// The document as JSON, with its entity tag. Both depend on the program only, so the first request keeps them.
static DOCUMENT: OnceCell<(Bytes, HeaderValue)> = OnceCell::const_new();

/// `GET /openapi.json`. A client that has the document gets 304.
pub async fn openapi(headers: HeaderMap) -> ApiResult<Response> {
    let (bytes, tag) = DOCUMENT.get_or_try_init(serialized_document).await?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_current = known.split(',').any(|known| known.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes());
    let common = [(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")), (header::ETAG, tag.clone())];
    if is_current {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((common, kind, bytes.clone()).into_response())
}

async fn serialized_document() -> ApiResult<(Bytes, HeaderValue)> {
    let bytes = serde_json::to_vec(&build_document().await?).map_err(|error| ApiError::internal(&error))?;
    let hash = hex::encode(&Sha256::digest(&bytes)[..8]);
    let tag = HeaderValue::from_str(&format!("\"{hash}\"")).map_err(|error| ApiError::internal(&error))?;
    Ok((Bytes::from(bytes), tag))
}

/// Builds the OpenAPI document from the types of the handlers.
pub fn openapi_document() -> Value {
    document(web_ui::version(), &super::all_routes().entries)
}

async fn build_document() -> ApiResult<Value> {
    let document = blocking::run(openapi_document).await;
    document.map_err(|error| ApiError::internal(&error))
}

/// `GET /docs`.
pub async fn docs(State(state): Shared) -> ApiResult<Html<String>> {
    let document = build_document().await?;
    let instance = state.core.instance_name();
    let html = blocking::run(move || render(&document, &instance)).await;
    html.map_err(|error| ApiError::internal(&error))?
}

fn render(document: &Value, instance: &str) -> ApiResult<Html<String>> {
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            let group = operation["tags"][0].as_str().unwrap_or_default().to_owned();
            groups.entry(group).or_default().push(operation_view(method, path, operation));
        }
    }
    let groups: Vec<Value> =
        groups.into_iter().map(|(name, operations)| json!({"name": name, "operations": operations})).collect();
    let schemas = members(&document["components"]["schemas"]).map(|(name, schema)| schema_view(name, schema));
    page("docs.html", instance, json!({"groups": groups, "schemas": schemas.collect::<Vec<_>>()}))
}

/// Iterates over the fields of an object; nothing for other values.
fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn operation_view(method: &str, path: &str, operation: &Value) -> Value {
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| {
        json!({
            "name": parameter["name"], "place": parameter["in"], "is_required": parameter["required"] == true,
            "type": describe_type(&parameter["schema"]),
        })
    });
    let body_type = |content: &Value| members(content).next().map(|(_, media)| describe_type(&media["schema"]));
    let responses = members(&operation["responses"]).map(|(status, response)| {
        json!({"status": status, "description": response["description"], "type": body_type(&response["content"])})
    });
    json!({
        "id": operation["operationId"], "method": method.to_uppercase(), "path": path,
        "parameters": parameters.collect::<Vec<_>>(), "body": body_type(&operation["requestBody"]["content"]),
        "answers": responses.collect::<Vec<_>>(),
    })
}

fn schema_view(name: &str, schema: &Value) -> Value {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields: Vec<Value> = members(&schema["properties"])
        .map(|(name, schema)| {
            let is_required = required.contains(&name.as_str());
            json!({"name": name, "is_required": is_required, "type": describe_type(schema)})
        })
        .collect();
    // A schema without fields is described by its type.
    let kind = fields.is_empty().then(|| describe_type(schema));
    json!({"name": name, "fields": fields, "type": kind})
}

/// Describes a type as a list of texts, some of which are names of schemas and become links.
fn describe_type(schema: &Value) -> Value {
    let mut parts = Vec::new();
    push_type(schema, &mut parts);
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        push_text(&format!(" = {default}"), &mut parts);
    }
    parts.into()
}

fn push_text(text: &str, parts: &mut Vec<Value>) {
    parts.push(json!({"text": text, "is_schema": false}));
}

/// Appends a type's description, such as `string (date-time) or null`.
fn push_type(schema: &Value, parts: &mut Vec<Value>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        parts.push(json!({"text": name, "is_schema": true}));
        return;
    }
    if let Some(fixed) = schema.get("const") {
        return push_text(&fixed.to_string(), parts);
    }
    if let Some(all) = schema["enum"].as_array() {
        let all: Vec<String> = all.iter().map(Value::to_string).collect();
        return push_text(&all.join(" or "), parts);
    }
    if let Some(any) = ["anyOf", "oneOf"].iter().find_map(|name| schema[*name].as_array()) {
        for (index, alternative) in any.iter().enumerate() {
            if index > 0 {
                push_text(" or ", parts);
            }
            push_type(alternative, parts);
        }
        return;
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any JSON"],
    };
    for (index, kind) in kinds.iter().enumerate() {
        if index > 0 {
            push_text(" or ", parts);
        }
        push_text(kind, parts);
        if *kind == "array" && schema["items"].is_object() {
            push_text(" of ", parts);
            push_type(&schema["items"], parts);
        }
        if let (Some(format), true) = (schema["format"].as_str(), *kind != "null") {
            push_text(&format!(" ({format})"), parts);
        }
    }
}
