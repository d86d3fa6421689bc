//! Validates the params of a DAG against their JSON schemas.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/params.html>

use super::dag::Structure;
use serde_json::{Map, Value};

/// Returns the param's value and schema. Versions stored by an older Leoflow hold only the value.
fn parts(param: &Value) -> (Option<&Value>, Option<&Value>) {
    match param.as_object().filter(|map| map.contains_key("schema")) {
        Some(map) => (map.get("value"), map.get("schema")),
        None => (Some(param), None),
    }
}

/// Validates the defaults, overridden by the run's `conf`. The error is Airflow's text: which param, and why.
pub fn check(structure: &Structure, conf: &Map<String, Value>) -> Result<(), String> {
    structure.params.iter().try_for_each(|(name, param)| check_one(name, param, conf.get(name)))
}

fn check_one(name: &str, param: &Value, conf_value: Option<&Value>) -> Result<(), String> {
    let (default, schema) = parts(param);
    let Some(value) = conf_value.or(default) else {
        return Err(format!("Invalid input for param {name}: No value passed and Param has no default value"));
    };
    let Some(schema) = schema.filter(|schema| schema.as_object().is_some_and(|map| !map.is_empty())) else {
        return Ok(());
    };
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options
        .build(schema)
        .map_err(|error| format!("The schema of param {name} is not a valid JSON schema: {error}"))?;
    validator.validate(value).map_err(|error| format!("Invalid input for param {name}: {error}"))
}

/// Checks the params that a DAG file declares: each schema must be valid and, if the DAG is scheduled, each default
/// must fit its schema.
pub(crate) fn check_defaults(structure: &Structure) -> Result<(), String> {
    for (name, param) in &structure.params {
        let (_, schema) = parts(param);
        if let Some(schema) = schema
            && let Err(error) = jsonschema::options().build(schema)
        {
            return Err(format!("The schema of param {name} is not a valid JSON schema: {error}"));
        }
    }
    let scheduled = structure.timetable.as_ref().is_some_and(|timetable| timetable.can_be_scheduled());
    if scheduled && check(structure, &Map::new()).is_err() {
        return Err(format!(
            "Dag '{}' is not allowed to define a Schedule, as there are required params without default values, \
             or the default values are not valid.",
            structure.dag_id
        ));
    }
    Ok(())
}
