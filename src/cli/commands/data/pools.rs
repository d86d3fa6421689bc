//! `leoflow pools …`, with the names and file formats of Airflow's CLI.

use crate::airflow::data_files::pools::{Entry, POOLS, from_airflow, pool_path, set, to_airflow};
use crate::airflow::data_files::transfer_file::{read_json, write_json};
use crate::api_client::Api;
use crate::args::output::Output;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Pools {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: PoolsCommand,
}

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
