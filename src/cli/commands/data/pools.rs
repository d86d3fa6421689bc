//! `leoflow pools …`, with the names and file formats of Airflow's CLI.

use crate::airflow::data_files::pools::{Entry, POOLS, from_airflow, pool_path, set, to_airflow};
use crate::airflow::data_files::transfer_file::{read_json, write_json};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow pools set database 2 'at most two queries'\n  leoflow pools list")]
pub enum PoolsCommand {
    /// List all pools and their used slots
    #[command(after_help = "Example:\n  leoflow pools list")]
    List,
    /// Show one pool
    #[command(after_help = "Example:\n  leoflow pools get default_pool")]
    Get {
        /// The pool's name
        name: String,
    },
    /// Create or change a pool
    #[command(
        after_help = "Examples:\n  leoflow pools set database 2 'at most two queries'\n  leoflow pools set default_pool 32"
    )]
    Set {
        /// The pool's name
        name: String,
        /// The number of slots; -1 means no limit
        #[arg(allow_negative_numbers = true)]
        slots: i32,
        /// A description for people [default: none]
        description: Option<String>,
        /// Count deferred tasks against the slots
        #[arg(long)]
        include_deferred: bool,
    },
    /// Delete a pool; its tasks do not run until it exists again
    #[command(after_help = "Example:\n  leoflow pools delete database")]
    Delete {
        /// The pool's name
        name: String,
    },
    /// Import pools from a JSON file written by `airflow pools export`
    #[command(after_help = "Example:\n  leoflow pools import pools.json")]
    Import {
        /// The JSON file; - reads stdin
        file: PathBuf,
    },
    /// Export all pools to a JSON file for `airflow pools import`
    #[command(after_help = "Example:\n  leoflow pools export pools.json")]
    Export {
        /// The JSON file to write; - writes to stdout
        file: PathBuf,
    },
}

pub async fn run(context: &Context<'_>, command: &PoolsCommand) -> Result<u8, Error> {
    let api = context.api();
    let printer = context.printer;
    match command {
        PoolsCommand::List => {
            let all = api.all(POOLS, "", "pools").await?;
            return show(context, &all);
        }
        PoolsCommand::Get { name } => {
            let pool: Value = api.get(&pool_path(name)).await?;
            return show(context, &[pool]);
        }
        PoolsCommand::Set { name, slots, description, include_deferred } => {
            let (slots, include_deferred) = (*slots, *include_deferred);
            let pool = Entry { name: name.clone(), slots, description: description.clone(), include_deferred };
            set(&api, &pool).await?;
            printer.note(format!("Set pool {name}"));
        }
        PoolsCommand::Delete { name } => {
            api.delete(&pool_path(name)).await?;
            printer.note(format!("Deleted pool {name}"));
        }
        PoolsCommand::Import { file } => {
            let pools = from_airflow(read_json(file)?)?;
            for pool in &pools {
                set(&api, pool).await?;
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

fn show(context: &Context<'_>, pools: &[Value]) -> Result<u8, Error> {
    context.printer.show(&json!({"pools": pools}), |printer| {
        let row = |pool: &Value| {
            ["name", "slots", "occupied_slots", "scheduled_slots", "description"].map(|name| match &pool[name] {
                Value::String(text) => text.clone(),
                Value::Null if name == "description" => String::new(),
                other => other.to_string(),
            })
        };
        printer.table(&["POOL", "SLOTS", "OCCUPIED", "SCHEDULED", "DESCRIPTION"], pools.iter().map(row));
    })
}
