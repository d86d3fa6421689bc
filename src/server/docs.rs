//! The REST API's description: for programs at `/openapi.json`, for people at `/docs`.

use super::api;
use super::api_error::ApiError;
use super::lite::render::page;
use super::openapi::document::document;
use crate::sys::blocking;
use crate::web_ui;
use axum::Json;
use axum::response::Html;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Made anew for each who asks, which is seldom: nothing of it stays in memory.
pub async fn openapi() -> Result<Json<Value>, ApiError> {
    described().await.map(Json)
}

async fn described() -> Result<Value, ApiError> {
    let made = blocking::run(|| document(web_ui::VERSION, &api::all_routes().entries)).await;
    made.map_err(|error| ApiError::internal(&error))
}

pub async fn docs() -> Result<Html<String>, ApiError> {
    let document = described().await?;
    let rendered = blocking::run(move || rendered(&document)).await;
    rendered.map_err(|error| ApiError::internal(&error))?
}

fn rendered(document: &Value) -> Result<Html<String>, ApiError> {
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            let group = operation["tags"][0].as_str().unwrap_or_default().to_owned();
            groups.entry(group).or_default().push(view(method, path, operation));
        }
    }
    let groups: Vec<Value> =
        groups.into_iter().map(|(name, operations)| json!({"name": name, "operations": operations})).collect();
    let schemas = members(&document["components"]["schemas"]).map(|(name, schema)| schema_view(name, schema));
    page("docs.html", &json!({"groups": groups, "schemas": schemas.collect::<Vec<_>>()}))
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn view(method: &str, path: &str, operation: &Value) -> Value {
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(|one| {
        json!({
            "name": one["name"], "place": one["in"], "is_required": one["required"] == true,
            "type": type_of(&one["schema"]),
        })
    });
    let first = |content: &Value| members(content).next().map(|(_, one)| type_of(&one["schema"]));
    let answers = members(&operation["responses"]).map(|(status, answer)| {
        json!({"status": status, "description": answer["description"], "type": first(&answer["content"])})
    });
    json!({
        "id": operation["operationId"], "method": method.to_uppercase(), "path": path,
        "parameters": parameters.collect::<Vec<_>>(), "body": first(&operation["requestBody"]["content"]),
        "answers": answers.collect::<Vec<_>>(),
    })
}

fn schema_view(name: &str, schema: &Value) -> Value {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields: Vec<Value> = members(&schema["properties"])
        .map(|(name, of)| json!({"name": name, "is_required": required.contains(&name.as_str()), "type": type_of(of)}))
        .collect();
    // What it is, where it has no fields.
    let of = fields.is_empty().then(|| type_of(schema));
    json!({"name": name, "fields": fields, "type": of})
}

/// In words, some of which name schemas.
fn type_of(schema: &Value) -> Value {
    let mut words = Vec::new();
    tell(schema, &mut words);
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        say(&format!(" = {default}"), &mut words);
    }
    words.into()
}

fn say(text: &str, words: &mut Vec<Value>) {
    words.push(json!({"text": text, "is_schema": false}));
}

/// In words: `string (date-time) or null`.
fn tell(schema: &Value, words: &mut Vec<Value>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        words.push(json!({"text": name, "is_schema": true}));
        return;
    }
    if let Some(fixed) = schema.get("const") {
        return say(&fixed.to_string(), words);
    }
    if let Some(all) = schema["enum"].as_array() {
        let all: Vec<String> = all.iter().map(Value::to_string).collect();
        return say(&all.join(" or "), words);
    }
    if let Some(any) = ["anyOf", "oneOf"].iter().find_map(|name| schema[*name].as_array()) {
        for (at, one) in any.iter().enumerate() {
            if at > 0 {
                say(" or ", words);
            }
            tell(one, words);
        }
        return;
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any JSON"],
    };
    for (at, kind) in kinds.iter().enumerate() {
        if at > 0 {
            say(" or ", words);
        }
        say(kind, words);
        if *kind == "array" && schema["items"].is_object() {
            say(" of ", words);
            tell(&schema["items"], words);
        }
        if let (Some(format), true) = (schema["format"].as_str(), *kind != "null") {
            say(&format!(" ({format})"), words);
        }
    }
}
