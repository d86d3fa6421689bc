//! The contract's operations, parameters and fields of the REST API, from its OpenAPI description.

use leoflow::contract::{Contract, Section};
use leoflow::server::openapi_document;
use serde_json::Value;

pub fn add(contract: &mut Contract) {
    let description = openapi_document();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            // Airflow's own paths are stable; Leoflow's additions may still change.
            let stability = if path.starts_with("/api/lite") { "preview" } else { "stable" };
            contract.add(Section::ApiOperations, &name, [("stability", stability.to_owned())]);
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let text = parameter["name"].as_str().unwrap();
                let required = if parameter["required"] == true { "yes" } else { "no" };
                let facts = [("required", required.to_owned()), ("type", type_name(&parameter["schema"]))];
                contract.add(Section::ApiParameters, &format!("{name} {text}"), facts);
            }
        }
    }
    for (schema, definition) in description["components"]["schemas"].as_object().unwrap() {
        for (field, value) in definition["properties"].as_object().into_iter().flatten() {
            contract.add(Section::ApiFields, &format!("{schema}.{field}"), [("type", type_name(value))]);
        }
    }
}

/// Schemas that have a name since the last contract, each with the type that their values have always had.
const NAMED_LATER: [(&str, &str); 6] = [
    ("AssetExpressionAlias", "object"),
    ("AssetExpressionAll", "object"),
    ("AssetExpressionAny", "object"),
    ("AssetExpressionAsset", "object"),
    ("AssetExpressionRef", "object"),
    ("HealthStatus", "string"),
];

/// Returns the type of a schema as text, such as `string or null` or `array of DAGResponse`, without constraints and
/// formats.
fn type_name(schema: &Value) -> String {
    let name_of = |reference: &str| {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let plain = NAMED_LATER.iter().find(|(named, _)| *named == name);
        plain.map_or(name, |(_, plain)| plain).to_owned()
    };
    if let Some(reference) = schema["$ref"].as_str() {
        return name_of(reference);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(parts) = schema[key].as_array() {
            return alternatives(parts.iter().map(type_name).collect());
        }
    }
    let named = |name: &str| match name {
        "array" => format!("array of {}", type_name(&schema["items"])),
        name => name.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => named(name),
        Value::Array(names) => alternatives(names.iter().filter_map(Value::as_str).map(named).collect()),
        _ => "any".to_owned(),
    }
}

fn alternatives(mut names: Vec<String>) -> String {
    // `null` comes last, wherever the description has it.
    names.sort_by_key(|name| name == "null");
    names.dedup();
    names.join(" or ")
}
