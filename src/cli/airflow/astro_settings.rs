//! Reads `airflow_settings.yaml`, in which an Astro project keeps connections, pools and variables for local runs.
//! <https://www.astronomer.io/docs/astro/cli/develop-project#configure-airflow_settingsyaml-local-development-only>

use super::airflow_content::AirflowContent;
use super::data_files::{connections, pools};
use crate::error::Error;
use leoflow_base::sys::fs::files;
use leoflow_engine::store::secret::variables::{Variable, as_text};
use serde_json::{Map, Value};
use std::fmt::Display;
use std::path::Path;

const FILE: &str = "airflow_settings.yaml";
/// Size limit, bytes.
const LIMIT: u64 = 4 * 1024 * 1024;
/// Keys of a connection in this file, each with its key in Airflow's JSON format.
const CONNECTION_KEYS: [(&str, &str); 8] = [
    ("conn_type", "conn_type"),
    ("conn_host", "host"),
    ("conn_schema", "schema"),
    ("conn_login", "login"),
    ("conn_password", "password"),
    ("conn_port", "port"),
    ("conn_uri", "uri"),
    ("conn_extra", "extra"),
];

/// Adds the connections, pools and variables of the file in `folder`. Without a file, adds nothing.
pub fn add(folder: &Path, content: &mut AirflowContent) -> Result<(), Error> {
    let path = folder.join(FILE);
    let text = files::read_text(&path, LIMIT).map_err(Error::cannot("read", &path))?;
    let Some(text) = text else { return Ok(()) };
    let invalid = |reason: &dyn Display| {
        Error::failed(format!("{} cannot be read: {reason}", path.display()))
            .hint("nothing was imported; correct the file, or move it away")
    };
    let settings: Value = serde_yaml::from_str(&text).map_err(|error| invalid(&error))?;
    let entries = |kind: &str, name: &str| -> Vec<(String, Value)> {
        let with_name = |entry: &Value| Some((non_empty(&entry[name])?, entry.clone()));
        settings["airflow"][kind].as_array().into_iter().flatten().filter_map(with_name).collect()
    };
    for (id, entry) in entries("connections", "conn_id") {
        content
            .connections
            .push(connections::from_json(&id, &connection_fields(&entry)).map_err(|error| invalid(&error))?);
    }
    for (name, entry) in entries("pools", "pool_name") {
        let slots = entry["pool_slot"].as_i64().and_then(|slots| i32::try_from(slots).ok());
        let slots = slots.ok_or_else(|| invalid(&format_args!("pool {name:?} has no valid pool_slot")))?;
        let description = non_empty(&entry["pool_description"]);
        content.pools.push(pools::Entry { name, slots, description, include_deferred: false });
    }
    for (key, entry) in entries("variables", "variable_name") {
        let value = if entry["variable_value"].is_null() { String::new() } else { as_text(&entry["variable_value"]) };
        content.variables.push(Variable { key, value, description: None });
    }
    Ok(())
}

/// Converts a connection to the fields of Airflow's JSON format. Skips empty values, which the template of a new Astro
/// project contains.
fn connection_fields(entry: &Value) -> Value {
    let is_set = |value: &Value| match value {
        Value::Object(fields) => fields.values().any(|value| !value.is_null()),
        value => non_empty(value).is_some(),
    };
    let fields = CONNECTION_KEYS.iter().filter(|(key, _)| is_set(&entry[*key]));
    fields.map(|(key, field)| ((*field).to_owned(), entry[*key].clone())).collect::<Map<_, _>>().into()
}

/// The text of a value; `None` for null and for an empty text.
fn non_empty(value: &Value) -> Option<String> {
    Some(as_text(value)).filter(|text| !value.is_null() && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_settings_and_skips_empty_template_entries() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = AirflowContent::default();
        add(folder.path(), &mut content).unwrap();
        let text = "airflow:\n  connections:\n    - conn_id: db\n      conn_type: postgres\n      conn_host: h\n      \
                    conn_port: 5432\n      conn_login: me\n      conn_password: 123\n      conn_schema:\n      \
                    conn_extra:\n        sslmode: require\n    - conn_id: web\n      conn_uri: http://h:1\n    \
                    - conn_id:\n      conn_type:\n      conn_extra:\n        example:\n  pools:\n    \
                    - pool_name: small\n      pool_slot: 2\n      pool_description:\n    - pool_name:\n      \
                    pool_slot:\n  variables:\n    - variable_name: color\n      variable_value: red\n    \
                    - variable_name: many\n      variable_value: {a: 1}\n    - variable_name:\n";
        std::fs::write(folder.path().join(FILE), text).unwrap();
        add(folder.path(), &mut content).unwrap();
        let [db, web] = &content.connections[..] else { panic!("{:?}", content.connections) };
        assert_eq!((db.connection_id.as_str(), db.port, db.password.as_deref()), ("db", Some(5432), Some("123")));
        assert_eq!((db.extra.as_deref(), web.port), (Some(r#"{"sslmode":"require"}"#), Some(1)));
        assert_eq!((content.pools.len(), content.pools[0].slots), (1, 2));
        let variables: Vec<_> = content.variables.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
        assert_eq!(variables, [("color", "red"), ("many", r#"{"a":1}"#)]);
        std::fs::write(folder.path().join(FILE), "airflow:\n  pools:\n    - pool_name: x\n").unwrap();
        assert!(add(folder.path(), &mut content).is_err());
    }
}
