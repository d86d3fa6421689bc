//! `leoflow pools …`, with the names and file formats of Airflow's CLI.

use super::transfer_file::{read_json, write_json};
use crate::cli::api::{Api, encode};
use crate::cli::args::PoolsCommand;
use crate::cli::printer::counted;
use crate::context::Context;
use crate::error::Error;
use serde_json::{Map, Value, json};

pub async fn run(context: &Context<'_>, command: &PoolsCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let printer = context.printer;
    match command {
        PoolsCommand::List => {
            let all = api.all(POOLS, "", "pools").await?;
            show(context, &all)?;
        }
        PoolsCommand::Get { name } => {
            let pool: Value = api.get(&pool_path(name)).await?;
            show(context, &[pool])?;
        }
        PoolsCommand::Set { name, slots, description, include_deferred } => {
            set(&api, name, *slots, description.as_deref(), *include_deferred).await?;
            printer.note(format!("Set pool {name}"));
        }
        PoolsCommand::Delete { name } => {
            api.delete(&pool_path(name)).await?;
            printer.note(format!("Deleted pool {name}"));
        }
        PoolsCommand::Import { file } => {
            let pools = from_airflow(read_json(file)?)?;
            for pool in &pools {
                set(&api, &pool.name, pool.slots, pool.description.as_deref(), pool.include_deferred).await?;
            }
            printer.line(format!("Imported {}", counted(pools.len(), "pool")));
        }
        PoolsCommand::Export { file } => {
            let all = api.all(POOLS, "", "pools").await?;
            write_json(context, file, &to_airflow(&all))?;
            printer.note(format!("Exported {}", counted(all.len(), "pool")));
        }
    }
    Ok(0)
}

pub const POOLS: &str = "/api/v2/pools";

/// Converts pools of the API to the format of Airflow's export.
pub fn to_airflow(pools: &[Value]) -> Value {
    let entry = |pool: &Value| {
        let fields = json!({
            "slots": pool["slots"], "description": pool["description"].as_str().unwrap_or_default(),
            "include_deferred": pool["include_deferred"],
        });
        (pool["name"].as_str().unwrap_or_default().to_owned(), fields)
    };
    pools.iter().map(entry).collect::<Map<_, _>>().into()
}

fn pool_path(name: &str) -> String {
    format!("/api/v2/pools/{}", encode(name))
}

fn show(context: &Context<'_>, pools: &[Value]) -> Result<(), Error> {
    if context.printer.json {
        return context.printer.json(&json!({"pools": pools}));
    }
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |pool: &Value| {
        let names = ["name", "slots", "occupied_slots", "scheduled_slots"];
        let mut row: Vec<String> = names.iter().map(|name| cell(&pool[*name])).collect();
        row.push(pool["description"].as_str().unwrap_or_default().to_owned());
        row
    };
    let header = ["POOL", "SLOTS", "OCCUPIED", "SCHEDULED", "DESCRIPTION"];
    context.printer.table(&header, &pools.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

/// Creates a pool, or changes the existing one.
pub async fn set(
    api: &Api<'_>,
    name: &str,
    slots: i32,
    description: Option<&str>,
    include_deferred: bool,
) -> Result<(), Error> {
    let body = json!({"slots": slots, "description": description, "include_deferred": include_deferred});
    let exists = api.all(POOLS, "", "pools").await?.iter().any(|pool| pool["name"] == name);
    if exists {
        let _: Value = api.patch(&pool_path(name), &body).await?;
        return Ok(());
    }
    let mut body = body;
    body["name"] = name.into();
    let _: Value = api.post("/api/v2/pools", &body).await?;
    Ok(())
}

/// A pool in an import file.
pub struct Entry {
    pub name: String,
    pub slots: i32,
    pub description: Option<String>,
    pub include_deferred: bool,
}

/// Reads `{"name": {"slots": …, "description": …}}`.
pub fn from_airflow(file: Value) -> Result<Vec<Entry>, Error> {
    let Value::Object(entries) = file else {
        return Err(Error::failed("the file is not a JSON object of pools").hint("nothing was imported"));
    };
    let pool = |(name, entry): (String, Value)| {
        let slots = entry["slots"].as_i64().and_then(|slots| i32::try_from(slots).ok());
        let slots = slots.ok_or_else(|| {
            Error::failed(format!("pool {name:?} has no valid number of slots")).hint("nothing was imported")
        })?;
        let description = entry["description"].as_str().map(str::to_owned);
        let include_deferred = entry["include_deferred"].as_bool().unwrap_or(false);
        Ok(Entry { name, slots, description, include_deferred })
    };
    entries.into_iter().map(pool).collect()
}
