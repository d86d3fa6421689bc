//! `leoflow connections`, in Airflow's words and files:
//! <https://airflow.apache.org/docs/apache-airflow/stable/cli-and-env-variables-ref.html#connections>

use super::connection_test;
use super::connections_format::{from_airflow, from_json, from_uri, to_airflow};
use super::transfer_file::{read_json, value_or_stdin, write_json};
use crate::cli::api::{Api, encode};
use crate::cli::args::{AddConnection, ConnectionsCommand};
use crate::commands::context::Context;
use crate::engine::store::OnExisting;
use crate::engine::store::connections::Connection;
use crate::error::Error;
use serde_json::{Value, json};

pub const LOCAL: &str = "/local/connections";
const PUBLIC: &str = "/api/v2/connections";

pub async fn run(context: &Context<'_>, command: &ConnectionsCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let printer = context.printer;
    match command {
        ConnectionsCommand::List => list(context, &api).await?,
        ConnectionsCommand::Get { conn_id } => {
            let found: Value = api.get(&format!("{PUBLIC}/{}", encode(conn_id))).await?;
            if printer.json {
                printer.json(&found)?;
            } else {
                for (name, value) in found.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
                    printer.line(format!(
                        "{name:<14} {}",
                        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                    ));
                }
            }
        }
        ConnectionsCommand::Add(args) => {
            let connection = added(args)?;
            let _: Value = api.post(PUBLIC, &json!(connection)).await?;
            printer.note(format!("connection {} added", args.conn_id));
        }
        ConnectionsCommand::Test { conn_id } => {
            let found: Connection = api.get(&format!("{LOCAL}/{}", encode(conn_id))).await?;
            let said: Value =
                api.patient().post(&format!("/local/connection-tests/{}", encode(conn_id)), &json!({})).await?;
            if said["tested"] == true {
                return tested(context, conn_id, &said);
            }
            let reached = connection_test::reach(&found).await;
            if printer.json {
                printer.json(&json!({"connection_id": conn_id, "reached": reached.is_ok(), "message": reached.as_ref().unwrap_or_else(|why| why)}))?;
            } else {
                match &reached {
                    Ok(place) => {
                        printer.line(format!("{place} answers"));
                        printer.note(format!(
                            "the login was not tried: no project has a provider with a hook for the type {}",
                            found.conn_type
                        ));
                    }
                    Err(why) => printer.line(format!("{conn_id} is not reached: {why}")),
                }
            }
            return Ok(u8::from(reached.is_err()));
        }
        ConnectionsCommand::Delete { conn_id } => {
            api.delete(&format!("{PUBLIC}/{}", encode(conn_id))).await?;
            printer.note(format!("connection {conn_id} removed"));
        }
        ConnectionsCommand::Import { file, overwrite } => {
            let entries =
                from_airflow(read_json(file)?).map_err(|text| Error::failed(text).hint("nothing was imported"))?;
            let on_existing = if *overwrite { OnExisting::Overwrite } else { OnExisting::Skip };
            let counts: Value =
                api.patient().put(LOCAL, &json!({"on_existing": on_existing, "entries": entries})).await?;
            printer.line(format!("{} connections imported, {} skipped", counts["imported"], counts["skipped"]));
        }
        ConnectionsCommand::Export { file } => {
            let all: Vec<Connection> = api.patient().get(LOCAL).await?;
            write_json(context, file, &to_airflow(&all))?;
            printer.note(format!("{} connections exported, passwords included", all.len()));
        }
    }
    Ok(0)
}

/// What a provider's hook has said of it.
fn tested(context: &Context<'_>, conn_id: &str, said: &Value) -> Result<u8, Error> {
    let (works, message) = (said["status"] == true, said["message"].as_str().unwrap_or_default());
    if context.printer.json {
        let provider = &said["provider"];
        context
            .printer
            .json(&json!({"connection_id": conn_id, "reached": works, "message": message, "provider": provider}))?;
    } else {
        let how = if works { "works" } else { "does not work" };
        let provider = said["provider"].as_str().unwrap_or_default();
        context.printer.line(format!("{conn_id} {how}, says {provider}: {message}"));
    }
    Ok(u8::from(!works))
}

async fn list(context: &Context<'_>, api: &Api<'_>) -> Result<(), Error> {
    let all: Vec<Connection> = api.patient().get(LOCAL).await?;
    let printer = context.printer;
    if printer.json {
        let hidden: Vec<Value> = all
            .iter()
            .map(|c| {
                json!({"connection_id": c.connection_id, "conn_type": c.conn_type, "host": c.host, "port": c.port,
                            "schema": c.schema, "login": c.login, "description": c.description})
            })
            .collect();
        return printer.json(&json!({"connections": hidden}));
    }
    if all.is_empty() {
        printer.note("there are no connections; `leoflow connections add ID --conn-type TYPE` makes one");
        return Ok(());
    }
    let row = |c: &Connection| {
        let host = c.host.clone().unwrap_or_default();
        let port = c.port.map(|port| port.to_string()).unwrap_or_default();
        vec![c.connection_id.clone(), c.conn_type.clone(), host, port, c.login.clone().unwrap_or_default()]
    };
    printer.table(&["ID", "TYPE", "HOST", "PORT", "LOGIN"], &all.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn added(args: &AddConnection) -> Result<Connection, Error> {
    let id = &args.conn_id;
    let bad = |text: String| Error::failed(text).hint("nothing was changed; leoflow connections add --help");
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
