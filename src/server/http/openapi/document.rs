//! The whole OpenAPI document: <https://spec.openapis.org/oas/v3.1.0>.

use super::nullable;
use super::operation::{JSON, Operation, Schemas};
use super::routes::Entry;
use crate::http::api_error::capitalised;
use crate::http::query::{Kind, Parameter};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// Builds the document for these operations.
pub fn document(version: &str, entries: &[Entry]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for entry in entries {
        let description = describe(entry, &mut schemas);
        let path = paths.entry(entry.path.clone()).or_insert_with(|| json!({}));
        path[entry.method.as_str().to_ascii_lowercase()] = description;
    }
    let mut all = schemas.into_all();
    all.extend(error_schemas());
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leoflow Lite",
            "description": "Apache Airflow's stable REST API, as this instance answers it.",
            "version": version,
        },
        "paths": paths,
        "components": {
            "schemas": all,
            "securitySchemes": {
                "OAuth2PasswordBearer": {
                    "type": "oauth2",
                    "description": "A token of POST /auth/token, as `Authorization: Bearer TOKEN`.",
                    "flows": {"password": {"scopes": {}, "tokenUrl": "/auth/token"}},
                },
                "HTTPBearer": {"type": "http", "scheme": "bearer"},
            },
        },
    });
    nullable::rewrite(&mut document);
    document
}

/// The parameters that name a region, from Airflow 3.4 on.
const REGION: [Parameter; 2] =
    [Parameter::new("region_id", Kind::Uuid), Parameter::new("region_index", Kind::MapIndex)];

/// Describes one operation.
fn describe(entry: &Entry, schemas: &mut Schemas) -> Value {
    let mut operation = Operation::for_path(&entry.path);
    (entry.describe)(&mut operation, schemas);
    if entry.takes_region {
        operation.parameters.extend(REGION.iter().map(Parameter::value));
    }
    let has_input = !operation.parameters.is_empty() || operation.body.is_some();
    let (status, content) = operation.success;
    let mut responses = Map::new();
    let reason = |status: u16| {
        let canonical = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        canonical.unwrap_or("Error").to_owned()
    };
    let mut success = json!({"description": reason(status)});
    if !content.is_empty() {
        success["content"] = content.into();
    }
    responses.insert(status.to_string(), success);
    let auth_errors = if entry.needs_token { &[401, 403][..] } else { &[] };
    for status in auth_errors.iter().chain(entry.errors) {
        responses.insert(status.to_string(), error_response(&reason(*status), "HTTPExceptionResponse"));
    }
    if has_input {
        responses.insert("422".to_owned(), error_response("Validation Error", "HTTPValidationError"));
    }
    let mut description = json!({
        "tags": entry.tags, "summary": title(entry.id), "operationId": entry.id, "responses": responses,
    });
    if !operation.parameters.is_empty() {
        description["parameters"] = operation.parameters.into();
    }
    if let Some(body) = operation.body {
        description["requestBody"] = body;
    }
    if entry.needs_token {
        description["security"] = json!([{"OAuth2PasswordBearer": []}, {"HTTPBearer": []}]);
    }
    description
}

fn error_response(reason: &str, schema: &str) -> Value {
    let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
    json!({"description": reason, "content": {JSON: {"schema": schema}}})
}

/// Converts `get_dag_run` to "Get Dag Run".
fn title(id: &str) -> String {
    id.split('_').map(capitalised).collect::<Vec<_>>().join(" ")
}

/// Schemas of the error bodies. `ApiError` builds them as plain JSON: no Rust type has a schema of them.
fn error_schemas() -> Map<String, Value> {
    let schemas = json!({
        "HTTPExceptionResponse": {
            "type": "object",
            "required": ["detail"],
            "properties": {"detail": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": true}]}},
        },
        "HTTPValidationError": {
            "type": "object",
            "properties": {"detail": {"type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}},
        },
        "ValidationError": {
            "type": "object",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                "msg": {"type": "string"},
                "type": {"type": "string"},
                "input": {},
                "ctx": {"type": "object"},
            },
        },
    });
    match schemas {
        Value::Object(schemas) => schemas,
        _ => Map::new(),
    }
}
