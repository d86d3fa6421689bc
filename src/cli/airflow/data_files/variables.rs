//! Variables: the file format of Airflow's CLI, and the request that imports or sets them.
//! <https://airflow.apache.org/docs/apache-airflow/stable/cli-and-env-variables-ref.html#variables>

use crate::api_client::Api;
use crate::args::OnExisting;
use crate::error::Error;
use leoflow_engine::store::secret::variables::{Variable, as_text};
use serde_json::{Map, Value, json};

/// Path in the local API for reading and writing variables with their values.
pub const LOCAL: &str = "/local/variables";

pub async fn import(api: &Api<'_>, entries: Vec<Variable>, on_existing: OnExisting) -> Result<Value, Error> {
    api.with_bulk_timeout().put(LOCAL, &json!({"on_existing": on_existing.for_store(), "entries": entries})).await
}

/// Reads `{"key": value}` or `{"key": {"value": …, "description": …}}`; a value that is not text is kept as
/// JSON.
pub fn from_airflow(file: Value) -> Result<Vec<Variable>, Error> {
    let Value::Object(entries) = file else {
        return Err(Error::failed("the file is not a JSON object of variables").hint("nothing was imported"));
    };
    let variable = |(key, entry): (String, Value)| match entry.get("value") {
        Some(value) if entry.is_object() => {
            let description = entry.get("description").and_then(Value::as_str).map(str::to_owned);
            Variable { key, value: as_text(value), description }
        }
        _ => Variable { key, value: as_text(&entry), description: None },
    };
    Ok(entries.into_iter().map(variable).collect())
}

/// Converts variables to the format of Airflow's export. A value that is JSON is written as JSON, as Airflow does, but
/// only if the import restores exactly the same text.
pub fn to_airflow(variables: &[Variable]) -> Value {
    let entry = |variable: &Variable| {
        let json = serde_json::from_str(&variable.value).ok().filter(|json| as_text(json) == variable.value);
        let parsed = json.unwrap_or_else(|| Value::from(variable.value.as_str()));
        // The import would read an object with a key "value" as the long form.
        let is_ambiguous = parsed.get("value").is_some();
        let value = match &variable.description {
            Some(description) => json!({"value": parsed, "description": description}),
            None if is_ambiguous => json!({"value": parsed}),
            None => parsed,
        };
        (variable.key.clone(), value)
    };
    Value::Object(variables.iter().map(entry).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(key: &str, value: &str, description: Option<&str>) -> Variable {
        Variable { key: key.into(), value: value.into(), description: description.map(str::to_owned) }
    }

    #[test]
    fn import_reads_what_export_writes() {
        let all = [
            variable("text", "hello", None),
            variable("number", "5", None),
            variable("object", r#"{"a":1}"#, Some("why")),
            variable("tricky", r#"{"value":1}"#, None),
            variable("not json", "{", None),
            variable("trailing zero", "1.10", None),
            variable("quoted", "\"quoted\"", None),
            variable("long number", "12345678901234567890123", None),
            variable("exponent", "1e5", None),
            variable("blanks", "{ \"a\" : 1 }", None),
            variable("twice", r#"{"a":1,"a":2}"#, None),
        ];
        assert_eq!(from_airflow(to_airflow(&all)).unwrap(), all);
    }

    #[test]
    fn reads_both_of_airflows_forms() {
        let file = json!({"a": "x", "b": {"value": {"c": 1}, "description": "d"}, "e": {"f": true}});
        let expected =
            [variable("a", "x", None), variable("b", r#"{"c":1}"#, Some("d")), variable("e", r#"{"f":true}"#, None)];
        assert_eq!(from_airflow(file).unwrap(), expected);
        assert!(from_airflow(json!([])).is_err());
    }
}
