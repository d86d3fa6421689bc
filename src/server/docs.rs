//! The REST API's description: for programs at `/openapi.json`, for people at `/docs`.

use super::api;
use super::api_error::ApiError;
use super::lite::pages::page;
use super::openapi::document::document;
use super::state::AppState;
use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::response::Html;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Made anew for each who asks, which is seldom: nothing of it stays in memory.
pub async fn openapi(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    described(&state).await.map(Json)
}

async fn described(state: &AppState) -> Result<Value, ApiError> {
    let version = state.version.to_string();
    let made = tokio::task::spawn_blocking(move || document(&version, &api::all_routes().entries)).await;
    made.map_err(|error| ApiError::internal(&error))
}

#[derive(Template)]
#[template(path = "docs.html", config = "src/server/lite/askama.toml")]
struct DocsPage {
    groups: BTreeMap<String, Vec<OperationView>>,
    schemas: Vec<SchemaView>,
}

struct OperationView {
    id: String,
    method: String,
    path: String,
    parameters: Vec<ParameterView>,
    body: Option<TypeView>,
    answers: Vec<AnswerView>,
}

struct ParameterView {
    name: String,
    place: String,
    is_required: bool,
    of: TypeView,
}

struct AnswerView {
    status: String,
    description: String,
    of: Option<TypeView>,
}

struct SchemaView {
    name: String,
    fields: Vec<FieldView>,
    /// What it is, where it has no fields.
    of: Option<TypeView>,
}

struct FieldView {
    name: String,
    is_required: bool,
    of: TypeView,
}

/// A type in words, and the schemas that these name.
struct TypeView {
    words: Vec<Word>,
}

struct Word {
    text: String,
    is_schema: bool,
}

pub async fn docs(State(state): State<Arc<AppState>>) -> Result<Html<String>, ApiError> {
    let document = described(&state).await?;
    let mut groups: BTreeMap<String, Vec<OperationView>> = BTreeMap::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            let group = operation["tags"][0].as_str().unwrap_or_default().to_owned();
            groups.entry(group).or_default().push(view(method, path, operation));
        }
    }
    let schemas = members(&document["components"]["schemas"]).map(|(name, schema)| schema_view(name, schema)).collect();
    page(&DocsPage { groups, schemas })
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn view(method: &str, path: &str, operation: &Value) -> OperationView {
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(|one| ParameterView {
        name: text(&one["name"]),
        place: text(&one["in"]),
        is_required: one["required"] == true,
        of: type_of(&one["schema"]),
    });
    let first = |content: &Value| members(content).next().map(|(_, one)| type_of(&one["schema"]));
    let answers = members(&operation["responses"]).map(|(status, answer)| AnswerView {
        status: status.clone(),
        description: text(&answer["description"]),
        of: first(&answer["content"]),
    });
    OperationView {
        id: text(&operation["operationId"]),
        method: method.to_uppercase(),
        path: path.to_owned(),
        parameters: parameters.collect(),
        body: first(&operation["requestBody"]["content"]),
        answers: answers.collect(),
    }
}

fn schema_view(name: &str, schema: &Value) -> SchemaView {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields: Vec<FieldView> = members(&schema["properties"])
        .map(|(name, of)| FieldView {
            name: name.clone(),
            is_required: required.contains(&name.as_str()),
            of: type_of(of),
        })
        .collect();
    let of = fields.is_empty().then(|| type_of(schema));
    SchemaView { name: name.to_owned(), fields, of }
}

fn type_of(schema: &Value) -> TypeView {
    let mut words = Vec::new();
    tell(schema, &mut words);
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        say(&format!(" = {default}"), &mut words);
    }
    TypeView { words }
}

fn say(text: &str, words: &mut Vec<Word>) {
    words.push(Word { text: text.to_owned(), is_schema: false });
}

/// In words: `string (date-time) or null`.
fn tell(schema: &Value, words: &mut Vec<Word>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        words.push(Word { text: name.to_owned(), is_schema: true });
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
