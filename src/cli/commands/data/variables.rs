//! `leoflow variables`, with the names and file formats of Airflow's CLI:
//! <https://airflow.apache.org/docs/apache-airflow/stable/cli-and-env-variables-ref.html#variables>

use crate::airflow::data_files::transfer_file::{read_json, value_or_stdin, write_json};
use crate::airflow::data_files::variables::{LOCAL, from_airflow, import, to_airflow};
use crate::api_client::{Api, encode};
use crate::args::OnExisting;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Subcommand;
use leoflow_base::sys::shell;
use leoflow_engine::store::secret::variables::{Variable, as_text};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  leoflow variables set bucket s3://data\n  leoflow variables export variables.json"
)]
pub enum VariablesCommand {
    /// List all keys with their descriptions
    #[command(after_help = "Example:\n  leoflow variables list --json")]
    List,
    /// Print a variable's value
    #[command(after_help = "Example:\n  leoflow variables get bucket")]
    Get {
        /// The variable's key
        key: String,
        /// Print this value when the variable does not exist [default: fail]
        #[arg(long, short)]
        default: Option<String>,
        /// Parse the value as JSON and print JSON text without its quotes, as `airflow variables get --json` does
        #[arg(short = 'j')]
        deserialize_json: bool,
    },
    /// Create or change a variable
    #[command(
        after_help = "Examples:\n  leoflow variables set bucket s3://data\n  leoflow variables set limits '{\"rows\": 100}' --description 'Row limits'"
    )]
    Set {
        /// The variable's key
        key: String,
        /// The value; - reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// A description for people [default: none]
        #[arg(long)]
        description: Option<String>,
        /// Store the value as JSON text in quotes, as `airflow variables set --json` does
        #[arg(short = 'j')]
        serialize_json: bool,
    },
    /// Delete a variable
    #[command(after_help = "Example:\n  leoflow variables delete bucket")]
    Delete {
        /// The variable's key
        key: String,
    },
    /// Import variables from a JSON file written by `airflow variables export`
    #[command(after_help = "Example:\n  leoflow variables import variables.json --action-on-existing-key skip")]
    Import {
        /// The JSON file; - reads stdin
        file: PathBuf,
        /// What to do with keys that already exist
        #[arg(long, short, value_enum, default_value_t = OnExisting::Overwrite)]
        action_on_existing_key: OnExisting,
    },
    /// Export all variables to a JSON file for `airflow variables import`
    #[command(
        after_help = "Examples:\n  leoflow variables export variables.json\n  leoflow variables export -     write to stdout"
    )]
    Export {
        /// The JSON file to write; - writes to stdout
        file: PathBuf,
    },
}

pub async fn run(context: &Context<'_>, command: &VariablesCommand) -> Result<u8, Error> {
    let api = context.api();
    let printer = context.printer;
    match command {
        VariablesCommand::List => return list(context, &api).await,
        VariablesCommand::Get { key, default, deserialize_json } => {
            return get(context, &api, key, default.as_deref(), *deserialize_json).await;
        }
        VariablesCommand::Set { key, value, description, serialize_json } => {
            let text = value_or_stdin(value)?;
            let value = if *serialize_json { Value::String(text).to_string() } else { text };
            let variable = Variable { key: key.clone(), value, description: description.clone() };
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

async fn list(context: &Context<'_>, api: &Api<'_>) -> Result<u8, Error> {
    let variables: Vec<Variable> = api.with_bulk_timeout().get(LOCAL).await?;
    let keys: Vec<Value> = variables.iter().map(|v| json!({"key": v.key, "description": v.description})).collect();
    context.printer.show(&json!({"variables": keys}), |printer| {
        if variables.is_empty() {
            return printer.note("No variables yet. Create one with `leoflow variables set KEY VALUE`.");
        }
        let row = |v: &Variable| [v.key.clone(), v.description.clone().unwrap_or_default()];
        printer.table(&["KEY", "DESCRIPTION"], variables.iter().map(row));
    })
}

/// Prints the value of a variable, or the default if the variable does not exist.
async fn get(
    context: &Context<'_>,
    api: &Api<'_>,
    key: &str,
    default: Option<&str>,
    deserialize_json: bool,
) -> Result<u8, Error> {
    let path = format!("{LOCAL}/{}", encode(key));
    let variable: Variable = match default {
        None => api.get(&path).await?,
        Some(value) => match api.find(&path).await? {
            Some(variable) => variable,
            None => {
                let variable = Variable { key: key.to_owned(), value: value.to_owned(), description: None };
                return context.printer.show(&variable, |printer| printer.line(value));
            }
        },
    };
    if !deserialize_json {
        return context.printer.show(&variable, |printer| printer.line(&variable.value));
    }
    let value: Value = serde_json::from_str(&variable.value).map_err(|error| {
        let hint = format!("leoflow variables get {} prints it as it is", shell::word(key));
        Error::failed(format!("the value of the variable {key} is not JSON")).cause(error).hint(hint)
    })?;
    context.printer.show(&value, |printer| printer.line(as_text(&value)))
}
