//! Writes schemas as FastAPI does, because most clients are written for FastAPI's form: `anyOf` in place of a list of
//! types, and `{}` in place of `true`. The meaning is the same.

use serde_json::{Map, Value, json};

/// Keywords that describe a value and do not limit it; they remain beside `anyOf`.
const ANNOTATIONS: &[&str] = &["title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples"];
/// Keywords that limit values of one type only, with that type.
const LIMITS: &[(&str, &str)] = &[
    ("pattern", "string"),
    ("minLength", "string"),
    ("maxLength", "string"),
    ("items", "array"),
    ("prefixItems", "array"),
    ("minItems", "array"),
    ("maxItems", "array"),
    ("uniqueItems", "array"),
    ("properties", "object"),
    ("required", "object"),
    ("additionalProperties", "object"),
];
/// Keywords whose value is one schema, a list of schemas, or a map of schemas by name.
const SINGLE: &[&str] = &["schema", "items", "not"];
const LISTS: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems"];
const MAPS: &[&str] = &["properties", "schemas"];

/// Rewrites every schema in the document.
pub fn rewrite(value: &mut Value) {
    match value {
        Value::Object(object) => {
            rewrite_object(object);
            object.values_mut().for_each(rewrite);
        }
        Value::Array(list) => list.iter_mut().for_each(rewrite),
        _ => {}
    }
}

fn rewrite_object(object: &mut Map<String, Value>) {
    for (name, value) in object.iter_mut() {
        match value {
            Value::Bool(true) if SINGLE.contains(&name.as_str()) => *value = json!({}),
            Value::Array(list) if LISTS.contains(&name.as_str()) => list.iter_mut().for_each(object_for_true),
            Value::Object(schemas) if MAPS.contains(&name.as_str()) => schemas.values_mut().for_each(object_for_true),
            _ => {}
        }
    }
    let Some(Value::Array(types)) = object.get("type").cloned() else { return };
    object.remove("type");
    let (annotations, limits): (Map<String, Value>, Map<String, Value>) =
        std::mem::take(object).into_iter().partition(|(name, _)| ANNOTATIONS.contains(&name.as_str()));
    *object = annotations;
    object.insert("anyOf".to_owned(), types.into_iter().map(|kind| alternative(kind, &limits)).collect());
}

fn object_for_true(schema: &mut Value) {
    if *schema == Value::Bool(true) {
        *schema = json!({});
    }
}

/// Returns the schema of one type, with the limits that apply to it.
fn alternative(kind: Value, limits: &Map<String, Value>) -> Value {
    let mut schema = Map::new();
    let is_for = |name: &str| match LIMITS.iter().find(|(limit, _)| *limit == name) {
        Some((_, only)) => kind == *only,
        // Formats and all other limits are kept for every type but null.
        None => kind != "null",
    };
    for (name, value) in limits.iter().filter(|(name, _)| is_for(name)) {
        let value = match (name.as_str(), value) {
            ("enum", Value::Array(values)) => values.iter().filter(|value| !value.is_null()).cloned().collect(),
            _ => value.clone(),
        };
        schema.insert(name.clone(), value);
    }
    schema.insert("type".to_owned(), kind);
    schema.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mut schema: Value) -> Value {
        rewrite(&mut schema);
        schema
    }

    #[test]
    fn a_list_of_types_becomes_any_of() {
        let schema = json!({"type": ["string", "null"], "description": "a text", "maxLength": 5, "format": "date-time", "default": null});
        assert_eq!(
            rewritten(schema),
            json!({"anyOf": [{"type": "string", "maxLength": 5, "format": "date-time"}, {"type": "null"}], "description": "a text", "default": null})
        );
        let nested =
            json!({"schema": {"type": ["array", "null"], "items": {"type": ["integer", "null"], "minimum": 0}}});
        assert_eq!(
            rewritten(nested),
            json!({"schema": {"anyOf": [
                {"type": "array", "items": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}},
                {"type": "null"},
            ]}})
        );
        assert_eq!(
            rewritten(json!({"type": ["string", "null"], "enum": ["a", null]})),
            json!({"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]})
        );
    }

    #[test]
    fn a_true_schema_becomes_an_empty_one() {
        let document = json!({
            "required": true, "schema": true, "properties": {"a": true, "schema": {"type": "boolean", "default": true}},
            "anyOf": [true, {"type": "null"}], "additionalProperties": true,
        });
        let expected = json!({
            "required": true, "schema": {}, "properties": {"a": {}, "schema": {"type": "boolean", "default": true}},
            "anyOf": [{}, {"type": "null"}], "additionalProperties": true,
        });
        assert_eq!(rewritten(document), expected);
    }
}
