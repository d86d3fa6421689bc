//! `leoflow connections`, with the names and file formats of Airflow's CLI:
//! <https://airflow.apache.org/docs/apache-airflow/stable/cli-and-env-variables-ref.html#connections>

use crate::airflow::data_files::connections::{ConnectionError, LOCAL, from_airflow, from_json, from_uri, to_airflow};
use crate::airflow::data_files::transfer_file::{read_json, value_or_stdin, write_json};
use crate::api_client::{Api, encode};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::{Args, Subcommand};
use leoflow_engine::store::OnExisting;
use leoflow_engine::store::secret::connections::Connection;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  leoflow connections add db --conn-type postgres --conn-host db.local\n  leoflow connections export connections.json"
)]
pub enum ConnectionsCommand {
    /// List all connections, without passwords
    #[command(after_help = "Example:\n  leoflow connections list --json")]
    List,
    /// Show one connection, with its password masked
    #[command(after_help = "Example:\n  leoflow connections get db")]
    Get {
        /// The connection's id
        conn_id: String,
    },
    /// Create a connection
    #[command(
        after_help = "Examples:\n  leoflow connections add db --conn-type postgres --conn-host db.local --conn-login me\n  \
                            leoflow connections add db --conn-json '{\"conn_type\": \"http\", \"host\": \"example.org\"}'"
    )]
    Add(Box<AddConnection>),
    /// Test a connection with its provider's hook, or its host and port alone; exits 1 on failure
    #[command(after_help = "Example:\n  leoflow connections test db")]
    Test {
        /// The connection's id
        conn_id: String,
    },
    /// Delete a connection
    #[command(after_help = "Example:\n  leoflow connections delete db")]
    Delete {
        /// The connection's id
        conn_id: String,
    },
    /// Import connections from a JSON file written by `airflow connections export`
    #[command(after_help = "Example:\n  leoflow connections import connections.json --overwrite")]
    Import {
        /// The JSON file; - reads stdin
        file: PathBuf,
        /// Replace connections that already exist [default: skip them]
        #[arg(long)]
        overwrite: bool,
    },
    /// Export all connections, including passwords, to a JSON file for `airflow connections import`
    #[command(
        after_help = "Examples:\n  leoflow connections export connections.json\n  leoflow connections export -     write to stdout"
    )]
    Export {
        /// The JSON file to write; - writes to stdout
        file: PathBuf,
        /// The format, for a file whose name says another one
        #[arg(long, visible_alias = "format", value_name = "FORMAT", value_parser = ["json"])]
        file_format: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct AddConnection {
    /// The connection's id
    pub conn_id: String,
    /// The type, for example postgres or http
    #[arg(long, required_unless_present_any = ["conn_json", "conn_uri"])]
    pub conn_type: Option<String>,
    /// A description for people
    #[arg(long)]
    pub conn_description: Option<String>,
    /// The host name or address
    #[arg(long)]
    pub conn_host: Option<String>,
    /// The user name
    #[arg(long)]
    pub conn_login: Option<String>,
    /// The password; - reads it from stdin, so that no other process can see it
    #[arg(long)]
    pub conn_password: Option<String>,
    /// The schema; for many types, the name of the database
    #[arg(long)]
    pub conn_schema: Option<String>,
    /// The port [default: chosen by the provider]
    #[arg(long)]
    pub conn_port: Option<i32>,
    /// Extra fields as a JSON object; - reads it from stdin
    #[arg(long)]
    pub conn_extra: Option<String>,
    /// The whole connection as JSON, as in an export
    #[arg(long, conflicts_with = "conn_type")]
    pub conn_json: Option<String>,
    /// The whole connection as a URI, for example postgres://me@db.local:5432/data; - reads it from stdin,
    /// which keeps a password out of the process list
    #[arg(long, conflicts_with_all = ["conn_type", "conn_json"])]
    pub conn_uri: Option<String>,
}

/// Path in Airflow's public API, which masks secrets.
const PUBLIC: &str = "/api/v2/connections";

pub async fn run(context: &Context<'_>, command: &ConnectionsCommand) -> Result<u8, Error> {
    let api = context.api();
    let printer = context.printer;
    match command {
        ConnectionsCommand::List => return list(context, &api).await,
        ConnectionsCommand::Get { conn_id } => return get(context, &api, conn_id).await,
        ConnectionsCommand::Add(args) => {
            let connection = connection_from_args(args)?;
            let _: Value = api.post(PUBLIC, &json!(connection)).await?;
            printer.note(format!("Created connection {}", args.conn_id));
        }
        ConnectionsCommand::Test { conn_id } => return test(context, &api, conn_id).await,
        ConnectionsCommand::Delete { conn_id } => {
            api.delete(&format!("{PUBLIC}/{}", encode(conn_id))).await?;
            printer.note(format!("Deleted connection {conn_id}"));
        }
        ConnectionsCommand::Import { file, overwrite } => {
            let entries = from_airflow(read_json(file)?)?;
            let on_existing = if *overwrite { OnExisting::Overwrite } else { OnExisting::Skip };
            let counts: Value =
                api.with_bulk_timeout().put(LOCAL, &json!({"on_existing": on_existing, "entries": entries})).await?;
            let imported = counted(&counts["imported"], "connection");
            printer.line(format!("Imported {imported}, skipped {}", counts["skipped"]));
        }
        ConnectionsCommand::Export { file, file_format } => {
            // Airflow writes the format that the name says.
            let says_other = |extension: &OsStr| ["env", "yaml", "yml"].iter().any(|other| extension == *other);
            if file_format.is_none() && file.extension().is_some_and(says_other) {
                return Err(Error::usage(format!("exports are JSON, and {} is not named .json", file.display()))
                    .hint("choose a name that ends in .json, or add --file-format json"));
            }
            let all: Vec<Connection> = api.with_bulk_timeout().get(LOCAL).await?;
            write_json(context, file, &to_airflow(&all))?;
            printer.note(format!("Exported {}, including passwords", counted(all.len(), "connection")));
        }
    }
    Ok(0)
}

async fn get(context: &Context<'_>, api: &Api<'_>, conn_id: &str) -> Result<u8, Error> {
    let connection: Value = api.get(&format!("{PUBLIC}/{}", encode(conn_id))).await?;
    context.printer.show(&connection, |printer| {
        for (name, value) in connection.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            printer.line(format!("{name:<14} {text}"));
        }
    })
}

/// Tests a connection with its provider's hook; without one, connects to its host and port.
async fn test(context: &Context<'_>, api: &Api<'_>, conn_id: &str) -> Result<u8, Error> {
    let response: Value =
        api.with_bulk_timeout().post(&format!("/local/connection-tests/{}", encode(conn_id)), &json!({})).await?;
    let (is_working, message) = (response["status"] == true, response["message"].as_str().unwrap_or_default());
    let mut value = json!({"connection_id": conn_id, "reached": is_working, "message": message});
    if response["provider"].is_string() {
        value["provider"] = response["provider"].clone();
    }
    context.printer.show(&value, |printer| match response["provider"].as_str() {
        Some(provider) => {
            let outcome = if is_working { "works" } else { "does not work" };
            printer.line(format!("{conn_id} {outcome}, according to {provider}: {message}"));
        }
        None if is_working => printer.line(message),
        None => printer.line(format!("{conn_id} is not reachable: {message}")),
    })?;
    Ok(u8::from(!is_working))
}

async fn list(context: &Context<'_>, api: &Api<'_>) -> Result<u8, Error> {
    let all: Vec<Connection> = api.with_bulk_timeout().get(LOCAL).await?;
    let without_secrets = |c: &Connection| {
        json!({"connection_id": c.connection_id, "conn_type": c.conn_type, "host": c.host, "port": c.port,
               "schema": c.schema, "login": c.login, "description": c.description})
    };
    let list: Vec<Value> = all.iter().map(without_secrets).collect();
    context.printer.show(&json!({"connections": list}), |printer| {
        if all.is_empty() {
            return printer.note("No connections yet. Create one with `leoflow connections add ID --conn-type TYPE`.");
        }
        let row = |c: &Connection| {
            let host = c.host.clone().unwrap_or_default();
            let port = c.port.map(|port| port.to_string()).unwrap_or_default();
            [c.connection_id.clone(), c.conn_type.clone(), host, port, c.login.clone().unwrap_or_default()]
        };
        printer.table(&["ID", "TYPE", "HOST", "PORT", "LOGIN"], all.iter().map(row));
    })
}

/// Builds the connection that `add` describes.
fn connection_from_args(args: &AddConnection) -> Result<Connection, Error> {
    let id = &args.conn_id;
    let bad =
        |error: ConnectionError| Error::failed(error).hint("nothing was changed; see leoflow connections add --help");
    if let Some(text) = &args.conn_json {
        let value = serde_json::from_str(text)
            .map_err(|error| Error::failed("--conn-json is not JSON").cause(error).hint("nothing was changed"))?;
        return from_json(id, &value).map_err(bad);
    }
    if let Some(uri) = &args.conn_uri {
        return from_uri(id, &value_or_stdin(uri)?).map_err(bad);
    }
    Ok(Connection {
        connection_id: id.clone(),
        conn_type: args.conn_type.clone().unwrap_or_default(),
        description: args.conn_description.clone(),
        host: args.conn_host.clone(),
        login: args.conn_login.clone(),
        schema: args.conn_schema.clone(),
        port: args.conn_port,
        password: args.conn_password.as_deref().map(value_or_stdin).transpose()?,
        extra: args.conn_extra.as_deref().map(value_or_stdin).transpose()?,
    })
}
