//! Params of a DAG: whether what a run is given fits their schemas.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/params.html>

use super::dag::Structure;
use serde_json::{Map, Value};

/// The value and the schema of each. Versions of an older Leoflow have nothing but the value.
fn parts(param: &Value) -> (Option<&Value>, Option<&Value>) {
    match param.as_object().filter(|map| map.contains_key("schema")) {
        Some(map) => (map.get("value"), map.get("schema")),
        None => (Some(param), None),
    }
}

/// Checks the defaults with what the run is given put over them. The error is Airflow's: which param, and why not.
pub fn check(structure: &Structure, conf: &Map<String, Value>) -> Result<(), String> {
    structure.params.iter().try_for_each(|(name, param)| check_one(name, param, conf.get(name)))
}

fn check_one(name: &str, param: &Value, given: Option<&Value>) -> Result<(), String> {
    let (default, schema) = parts(param);
    let Some(value) = given.or(default) else {
        return Err(format!("Invalid input for param {name}: No value passed and Param has no default value"));
    };
    let Some(schema) = schema.filter(|schema| schema.as_object().is_some_and(|map| !map.is_empty())) else {
        return Ok(());
    };
    let options = jsonschema::options().should_validate_formats(true);
    let validator =
        options.build(schema).map_err(|error| format!("The schema of param {name} is no JSON schema: {error}"))?;
    validator.validate(value).map_err(|error| format!("Invalid input for param {name}: {error}"))
}

/// What a DAG file's own params do not allow: a schema that is none, and, where the DAG is scheduled, a
/// default that does not fit.
pub fn check_defaults(structure: &Structure) -> Result<(), String> {
    for (name, param) in &structure.params {
        let (_, schema) = parts(param);
        if let Some(schema) = schema
            && let Err(error) = jsonschema::options().build(schema)
        {
            return Err(format!("The schema of param {name} is no JSON schema: {error}"));
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
