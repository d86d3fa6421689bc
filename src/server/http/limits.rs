//! The limits that the schema of a body declares for its fields: lengths of text, and bounds of numbers.

use super::api_error::ApiError;
use schemars::JsonSchema;
use serde_json::{Map, Value};

/// Checks the fields of a body against the limits that `T` declares, with pydantic's errors. A value of another type
/// than declared is left to the deserializer.
pub fn check<T: JsonSchema>(fields: &Map<String, Value>) -> Result<(), ApiError> {
    let schema = schemars::schema_for!(T);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    for (name, value) in fields {
        let Some(property) = properties.get(name) else { continue };
        // A nullable field may list its type beside null.
        let options = property.get("anyOf").and_then(Value::as_array).into_iter().flatten();
        for declared in options.chain([property]) {
            if let Some((kind, message)) = violated(declared, value) {
                return Err(ApiError::unprocessable(&["body", name], kind, message));
            }
        }
    }
    Ok(())
}

/// Returns the limit that a value violates, as pydantic's type and message of the error.
fn violated(declared: &Value, value: &Value) -> Option<(&'static str, String)> {
    let limit = |name: &str| declared.get(name).and_then(Value::as_f64);
    match value {
        Value::String(text) => {
            let length = text.chars().count() as f64;
            let characters = |count: f64| if count == 1.0 { "character" } else { "characters" };
            let text = |bound: &str, count: f64| format!("String should have {bound} {count} {}", characters(count));
            if let Some(longest) = limit("maxLength").filter(|longest| length > *longest) {
                return Some(("string_too_long", text("at most", longest)));
            }
            let shortest = limit("minLength").filter(|shortest| length < *shortest)?;
            Some(("string_too_short", text("at least", shortest)))
        }
        Value::Number(number) => {
            let number = number.as_f64()?;
            if let Some(largest) = limit("maximum").filter(|largest| number > *largest) {
                return Some(("less_than_equal", format!("Input should be less than or equal to {largest}")));
            }
            let smallest = limit("minimum").filter(|smallest| number < *smallest)?;
            Some(("greater_than_equal", format!("Input should be greater than or equal to {smallest}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Body {
        #[schemars(length(min = 1, max = 3))]
        name: String,
        #[schemars(length(max = 2))]
        note: Option<String>,
        #[schemars(range(min = -1))]
        slots: Option<i32>,
    }

    #[test]
    fn declared_limits_are_enforced() {
        let problem = |fields: Value| {
            let error = check::<Body>(fields.as_object().unwrap()).err()?;
            let detail: Value = serde_json::from_str(&error.message()).unwrap();
            Some((detail[0]["loc"][1].as_str()?.to_owned(), detail[0]["msg"].as_str()?.to_owned()))
        };
        let some = |field: &str, text: &str| Some((field.to_owned(), text.to_owned()));
        assert_eq!(problem(json!({"name": "äöü", "note": null, "slots": -1, "other": 1})), None);
        assert_eq!(problem(json!({"name": "four"})), some("name", "String should have at most 3 characters"));
        assert_eq!(problem(json!({"name": ""})), some("name", "String should have at least 1 character"));
        assert_eq!(problem(json!({"note": "abc"})), some("note", "String should have at most 2 characters"));
        assert_eq!(problem(json!({"slots": -2})), some("slots", "Input should be greater than or equal to -1"));
        assert_eq!(problem(json!({"slots": "many", "note": 5})), None, "left to the deserializer");
    }
}
