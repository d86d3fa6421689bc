//! Arguments of the commands on pools, assets and backfills.

use super::complete;
use super::output::Output;
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
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

#[derive(Args, Debug)]
pub struct Assets {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: AssetsCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow assets list\n  leoflow assets materialize orders")]
pub enum AssetsCommand {
    /// List all assets with their producing tasks and consuming DAGs
    #[command(after_help = "Example:\n  leoflow assets list")]
    List,
    /// Show one asset
    #[command(after_help = "Example:\n  leoflow assets details orders")]
    Details {
        /// The asset's name or URI
        name: String,
    },
    /// List asset events, newest last
    #[command(after_help = "Example:\n  leoflow assets events orders")]
    Events {
        /// Only events of this asset, by name or URI [default: all assets]
        name: Option<String>,
    },
    /// Trigger the DAG that produces an asset
    #[command(after_help = "Example:\n  leoflow assets materialize orders")]
    Materialize {
        /// The asset's name or URI
        name: String,
    },
}

#[derive(Args, Debug)]
pub struct Backfill {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: BackfillCommand,
}

/// Names as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reprocess {
    None,
    Failed,
    Completed,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  leoflow backfill create report --from-date 2026-01-01 --to-date 2026-01-31")]
pub enum BackfillCommand {
    /// Create the runs of a DAG's schedule between two dates, both included
    #[command(
        after_help = "Examples:\n  leoflow backfill create report --from-date 2026-01-01 --to-date 2026-01-31\n  \
                      leoflow backfill create report --from-date 2026-01-01 --to-date 2026-01-31 --dry-run"
    )]
    Create(CreateBackfill),
    /// List the backfills of one DAG, or of all
    #[command(after_help = "Example:\n  leoflow backfill list report")]
    List {
        /// Only backfills of this DAG [default: all DAGs]
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: Option<String>,
    },
    /// Pause a backfill: its queued runs do not start
    #[command(after_help = "Example:\n  leoflow backfill pause 1")]
    Pause {
        /// The backfill's id, as `leoflow backfill list` shows it
        id: i64,
    },
    /// Unpause a backfill: its queued runs may start
    #[command(after_help = "Example:\n  leoflow backfill unpause 1")]
    Unpause {
        /// The backfill's id, as `leoflow backfill list` shows it
        id: i64,
    },
    /// Cancel a backfill: its queued runs fail
    #[command(after_help = "Example:\n  leoflow backfill cancel 1")]
    Cancel {
        /// The backfill's id, as `leoflow backfill list` shows it
        id: i64,
    },
}

#[derive(Args, Debug)]
pub struct CreateBackfill {
    /// The DAG's id; its schedule must be periodic
    #[arg(required_unless_present = "dag_id_option", add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: Option<String>,
    /// The DAG's id as an option, as in Airflow's CLI
    #[arg(long = "dag-id", value_name = "DAG_ID", conflicts_with = "dag_id", add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id_option: Option<String>,
    /// The first date, for example 2026-01-31 or 2026-01-31T06:00; UTC unless it has an offset
    #[arg(long)]
    pub from_date: String,
    /// The last date, included; a date without a time means its midnight, as in Airflow
    #[arg(long)]
    pub to_date: String,
    /// Params of the runs, as a JSON object [default: those of the DAG]
    #[arg(long)]
    pub dag_run_conf: Option<String>,
    /// Run the newest date first
    #[arg(long)]
    pub run_backwards: bool,
    /// Which existing runs of the dates to run again
    #[arg(long, value_enum, default_value_t = Reprocess::None)]
    pub reprocess_behavior: Reprocess,
    /// The maximum number of runs at once
    #[arg(long, default_value_t = 10)]
    pub max_active_runs: u32,
    /// Print the runs that would be created and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl CreateBackfill {
    pub fn dag_id(&self) -> &str {
        self.dag_id.as_deref().or(self.dag_id_option.as_deref()).unwrap_or_default()
    }
}
