//! Arguments of the commands on pools, assets and backfills.

use super::complete;
use super::output_args::Output;
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
    /// All pools, with how much of them is in use
    #[command(after_help = "Example:\n  leoflow pools list")]
    List,
    /// One pool
    #[command(after_help = "Example:\n  leoflow pools get default_pool")]
    Get { name: String },
    /// Make or change a pool
    #[command(
        after_help = "Examples:\n  leoflow pools set database 2 'at most two queries'\n  leoflow pools set default_pool 32"
    )]
    Set {
        name: String,
        /// How many slots it has; -1 is no limit
        #[arg(allow_negative_numbers = true)]
        slots: i32,
        /// What it is for
        description: Option<String>,
        /// Count deferred tasks too
        #[arg(long)]
        include_deferred: bool,
    },
    /// Remove a pool; tasks of it do not run until there is one again
    #[command(after_help = "Example:\n  leoflow pools delete database")]
    Delete { name: String },
    /// Read pools from a JSON file as `airflow pools export` writes it
    #[command(after_help = "Example:\n  leoflow pools import pools.json")]
    Import { file: PathBuf },
    /// Write all pools to a JSON file that `airflow pools import` reads
    #[command(after_help = "Example:\n  leoflow pools export pools.json")]
    Export { file: PathBuf },
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
    /// All assets, with who makes them and who waits for them
    #[command(after_help = "Example:\n  leoflow assets list")]
    List,
    /// One asset, by its name or its URI
    #[command(after_help = "Example:\n  leoflow assets details orders")]
    Details { name: String },
    /// What has happened to assets, newest last
    #[command(after_help = "Example:\n  leoflow assets events orders")]
    Events {
        /// Only of this asset, by its name or its URI
        name: Option<String>,
    },
    /// Start the DAG that makes an asset
    #[command(after_help = "Example:\n  leoflow assets materialize orders")]
    Materialize { name: String },
}

#[derive(Args, Debug)]
pub struct Backfill {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: BackfillCommand,
}

/// As the API has it.
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
    /// Make the runs that a DAG's schedule has between two dates, both included
    #[command(
        after_help = "Examples:\n  leoflow backfill create report --from-date 2026-01-01 --to-date 2026-01-31\n  \
                      leoflow backfill create report --from-date 2026-01-01 --to-date 2026-01-31 --dry-run"
    )]
    Create(CreateBackfill),
    /// The backfills of a DAG, or of all
    #[command(after_help = "Example:\n  leoflow backfill list report")]
    List {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: Option<String>,
    },
    /// Let runs of a backfill that have not begun wait
    #[command(after_help = "Example:\n  leoflow backfill pause 1")]
    Pause { id: i64 },
    /// Let them begin
    #[command(after_help = "Example:\n  leoflow backfill unpause 1")]
    Unpause { id: i64 },
    /// End a backfill: its runs that have not begun fail
    #[command(after_help = "Example:\n  leoflow backfill cancel 1")]
    Cancel { id: i64 },
}

#[derive(Args, Debug)]
pub struct CreateBackfill {
    /// The DAG; it needs a schedule that comes again and again
    #[arg(required_unless_present = "dag_id_option", add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: Option<String>,
    /// The same, as Airflow has it
    #[arg(long = "dag-id", value_name = "DAG_ID", conflicts_with = "dag_id", add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id_option: Option<String>,
    /// The first date, such as 2026-01-31 or 2026-01-31T06:00, in UTC where it names no zone
    #[arg(long)]
    pub from_date: String,
    /// The last date, which belongs to it; a day without a time is its midnight, as in Airflow
    #[arg(long)]
    pub to_date: String,
    /// Values for the runs' params, as a JSON object
    #[arg(long)]
    pub dag_run_conf: Option<String>,
    /// The newest date first
    #[arg(long)]
    pub run_backwards: bool,
    /// What to do with dates that have a run
    #[arg(long, value_enum, default_value_t = Reprocess::None)]
    pub reprocess_behavior: Reprocess,
    /// How many at once
    #[arg(long, default_value_t = 10)]
    pub max_active_runs: u32,
    /// Only say which runs there would be
    #[arg(long)]
    pub dry_run: bool,
}

impl CreateBackfill {
    pub fn dag_id(&self) -> &str {
        self.dag_id.as_deref().or(self.dag_id_option.as_deref()).unwrap_or_default()
    }
}
