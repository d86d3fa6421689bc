//! `leoflow variables`, with the names and file formats of Airflow's CLI:
//! <https://airflow.apache.org/docs/apache-airflow/stable/cli-and-env-variables-ref.html#variables>

use crate::airflow::data_files::transfer_file::{read_json, value_or_stdin, write_json};
use crate::airflow::data_files::variables::{LOCAL, from_airflow, import, to_airflow};
use crate::api_client::{Api, encode};
use crate::args::{OnExisting, VariablesCommand};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use leoflow_engine::store::secret::variables::Variable;
use serde_json::{Value, json};

pub async fn run(context: &Context<'_>, command: &VariablesCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let printer = context.printer;
    match command {
        VariablesCommand::List => {
            let variables: Vec<Variable> = api.with_bulk_timeout().get(LOCAL).await?;
            if printer.json {
                let keys: Vec<Value> =
                    variables.iter().map(|v| json!({"key": v.key, "description": v.description})).collect();
                printer.json(&json!({"variables": keys}))?;
            } else if variables.is_empty() {
                printer.note("No variables yet. Create one with `leoflow variables set KEY VALUE`.");
            } else {
                let row = |v: &Variable| vec![v.key.clone(), v.description.clone().unwrap_or_default()];
                printer.table(&["KEY", "DESCRIPTION"], &variables.iter().map(row).collect::<Vec<_>>());
            }
        }
        VariablesCommand::Get { key, default } => {
            let result: Result<Variable, Error> = api.get(&format!("{LOCAL}/{}", encode(key))).await;
            let variable = match (result, default) {
                (Err(_), Some(value)) if !exists(&api, key).await? => {
                    Variable { key: key.clone(), value: value.clone(), description: None }
                }
                (result, _) => result?,
            };
            if printer.json {
                printer.json(&variable)?;
            } else {
                printer.line(variable.value);
            }
        }
        VariablesCommand::Set { key, value, description } => {
            let variable =
                Variable { key: key.clone(), value: value_or_stdin(value)?, description: description.clone() };
            import(&api, vec![variable], OnExisting::Overwrite).await?;
            printer.note(format!("Set variable {key}"));
        }
        VariablesCommand::Delete { key } => {
            api.delete(&format!("/api/v2/variables/{}", encode(key))).await?;
            printer.note(format!("Deleted variable {key}"));
        }
        VariablesCommand::Import { file, action_on_existing_key } => {
            let entries = from_airflow(read_json(file)?)?;
            let counts = import(&api, entries, *action_on_existing_key).await?;
            let imported = counted(&counts["imported"], "variable");
            printer.line(format!("Imported {imported}, skipped {}", counts["skipped"]));
        }
        VariablesCommand::Export { file } => {
            let variables: Vec<Variable> = api.with_bulk_timeout().get(LOCAL).await?;
            write_json(context, file, &to_airflow(&variables))?;
            printer.note(format!("Exported {}", counted(variables.len(), "variable")));
        }
    }
    Ok(0)
}

/// True when the variable exists.
async fn exists(api: &Api<'_>, key: &str) -> Result<bool, Error> {
    let variables: Vec<Variable> = api.with_bulk_timeout().get(LOCAL).await?;
    Ok(variables.iter().any(|variable| variable.key == key))
}
