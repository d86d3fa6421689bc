//! Validates the params of a DAG against their JSON schemas.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/params.html>

use super::dag::Structure;
use jsonschema::{ValidationError, ValidationOptions, Validator};
use serde_json::{Map, Value};

/// Returns the param's value and schema. Versions stored by an older Leoflow hold only the value.
fn parts(param: &Value) -> (Option<&Value>, Option<&Value>) {
    match param.as_object().filter(|map| map.contains_key("schema")) {
        Some(map) => (map.get("value"), map.get("schema")),
        None => (Some(param), None),
    }
}

/// Why params are refused. Except for `Schema`, the texts are Airflow's.
#[derive(Debug, thiserror::Error)]
pub enum ParamError {
    #[error("Invalid input for param {0}: No value passed and Param has no default value")]
    NoValue(String),
    #[error("Invalid input for param {name}: {source}")]
    Value { name: String, source: Box<ValidationError<'static>> },
    #[error("The schema of param {name} is not a valid JSON schema: {source}")]
    Schema { name: String, source: Box<ValidationError<'static>> },
    #[error(
        "Dag '{0}' is not allowed to define a Schedule, as there are required params without default values, \
         or the default values are not valid."
    )]
    Scheduled(String),
}

/// Validates the defaults, overridden by the run's `conf`.
pub fn check(structure: &Structure, conf: &Map<String, Value>) -> Result<(), ParamError> {
    structure.params.iter().try_for_each(|(name, param)| check_one(name, param, conf.get(name)))
}

fn check_one(name: &str, param: &Value, conf_value: Option<&Value>) -> Result<(), ParamError> {
    let (default, schema) = parts(param);
    let value = conf_value.or(default).ok_or_else(|| ParamError::NoValue(name.to_owned()))?;
    let Some(schema) = schema.filter(|schema| schema.as_object().is_some_and(|map| !map.is_empty())) else {
        return Ok(());
    };
    validator(name, schema, airflow_formats())?
        .validate(value)
        .map_err(|error| ParamError::Value { name: name.to_owned(), source: Box::new(error.to_owned()) })
}

/// The formats that Airflow does not check, which has no packages for them: `date-time` may lack the zone, for example.
const UNCHECKED_FORMATS: [&str; 9] = [
    "date-time",
    "hostname",
    "iri",
    "iri-reference",
    "json-pointer",
    "relative-json-pointer",
    "uri",
    "uri-reference",
    "uri-template",
];

/// Checks formats as Airflow does, whose `time` has no zone.
fn airflow_formats() -> ValidationOptions<'static> {
    let is_time = |text: &str| jiff::civil::Time::strptime("%H:%M:%S", text).is_ok();
    let options = jsonschema::options().should_validate_formats(true).with_format("time", is_time);
    UNCHECKED_FORMATS.into_iter().fold(options, |options, format| options.with_format(format, |_: &str| true))
}

fn validator(name: &str, schema: &Value, options: ValidationOptions) -> Result<Validator, ParamError> {
    let invalid = |source| ParamError::Schema { name: name.to_owned(), source: Box::new(source) };
    options.build(schema).map_err(invalid)
}

/// Checks the params that a DAG file declares: each schema must be valid and, if the DAG is scheduled, each default
/// must fit its schema.
pub(crate) fn check_defaults(structure: &Structure) -> Result<(), ParamError> {
    for (name, param) in &structure.params {
        if let (_, Some(schema)) = parts(param) {
            validator(name, schema, jsonschema::options())?;
        }
    }
    let scheduled = structure.timetable.as_ref().is_some_and(|timetable| timetable.can_be_scheduled());
    match scheduled && check(structure, &Map::new()).is_err() {
        true => Err(ParamError::Scheduled(structure.dag_id.clone())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_are_checked_as_in_airflow() {
        let is_valid = |format: &str, value: &str| {
            check_one("p", &json!({"value": value, "schema": {"type": "string", "format": format}}), None).is_ok()
        };
        for (format, value) in [
            ("time", "12:13:14"),
            ("date-time", "2026-01-01T00:00"),
            ("date", "2026-01-01"),
            ("email", "a@b"),
            ("uri", "some path"),
        ] {
            assert!(is_valid(format, value), "{format} {value}");
        }
        for (format, value) in [("time", "12:13"), ("date", "today"), ("email", "a"), ("uuid", "x"), ("regex", "(")] {
            assert!(!is_valid(format, value), "{format} {value}");
        }
    }
}
