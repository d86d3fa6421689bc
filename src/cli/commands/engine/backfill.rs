//! `leoflow backfill …`.

use super::run_inputs::{read_conf, read_date};
use crate::api_client::{Api, cell, encode, list_of};
use crate::args::complete;
use crate::args::rerun_version::RerunVersion;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use serde_json::{Value, json};

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
    /// The DAG's id; its schedule must be periodic, or a cron partition's
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
    /// Which existing runs of the dates to run again; of partitions, which get another run
    #[arg(long, value_enum, default_value_t = Reprocess::None)]
    pub reprocess_behavior: Reprocess,
    #[command(flatten)]
    pub version: RerunVersion,
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

/// The existing runs that a backfill runs again. Serialized with the API's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reprocess {
    None,
    Failed,
    Completed,
}

pub async fn run(context: &Context<'_>, command: &BackfillCommand) -> Result<u8, Error> {
    let api = context.api();
    match command {
        BackfillCommand::Create(args) => create(context, &api, args).await,
        BackfillCommand::List { dag_id } => {
            let filter = dag_id.as_ref().map(|id| format!("&dag_id={}", encode(id))).unwrap_or_default();
            let response: Value = api.get(&format!("/api/v2/backfills?limit=100{filter}")).await?;
            context.printer.show(&response, |printer| {
                let rows: Vec<_> = list_of(&response["backfills"]).map(|entry| row(printer, entry)).collect();
                match rows.is_empty() {
                    true => printer.note("No backfills yet. Create one with `leoflow backfill create`."),
                    false => printer.table(&["ID", "DAG", "FROM", "TO", "STATE"], rows),
                }
            })
        }
        BackfillCommand::Pause { id } => change(context, &api, *id, "pause").await,
        BackfillCommand::Unpause { id } => change(context, &api, *id, "unpause").await,
        BackfillCommand::Cancel { id } => change(context, &api, *id, "cancel").await,
    }
}

fn row(printer: &Printer, backfill: &Value) -> [String; 5] {
    let time = |name: &str| printer.time(backfill[name].as_str());
    let state = match (backfill["completed_at"].is_string(), backfill["is_paused"] == true) {
        (true, _) => "completed",
        (false, true) => "paused",
        (false, false) => "running",
    };
    [backfill["id"].to_string(), cell(&backfill["dag_id"]), time("from_date"), time("to_date"), state.to_owned()]
}

/// Pauses, unpauses or cancels a backfill.
async fn change(context: &Context<'_>, api: &Api<'_>, id: i64, action: &str) -> Result<u8, Error> {
    let changed: Value = api.with_bulk_timeout().put(&format!("/api/v2/backfills/{id}/{action}"), &json!({})).await?;
    context.printer.show(&changed, |printer| printer.line(row(printer, &changed).join("  ")))
}

async fn create(context: &Context<'_>, api: &Api<'_>, args: &CreateBackfill) -> Result<u8, Error> {
    let body = json!({
        "dag_id": args.dag_id(),
        "from_date": read_date("--from-date", &args.from_date)?.to_string(),
        "to_date": read_date("--to-date", &args.to_date)?.to_string(),
        "dag_run_conf": read_conf(args.dag_run_conf.as_deref())?,
        "run_backwards": args.run_backwards,
        "reprocess_behavior": args.reprocess_behavior, "run_on_latest_version": args.version.requested(),
        "max_active_runs": args.max_active_runs,
    });
    if args.dry_run {
        let response: Value = api.with_bulk_timeout().post("/api/v2/backfills/dry_run", &body).await?;
        return context.printer.show(&response, |printer| {
            for entry in list_of(&response["backfills"]) {
                match entry["partition_key"].as_str() {
                    Some(key) => printer.line(key),
                    None => printer.line(printer.time(entry["logical_date"].as_str())),
                }
            }
            printer.note(format!("Would create {}", counted(&response["total_entries"], "run")));
        });
    }
    // A backfill may have tens of thousands of runs.
    let created: Value = api.with_bulk_timeout().post("/api/v2/backfills", &body).await?;
    context.printer.show(&created, |printer| printer.line(row(printer, &created).join("  ")))?;
    if !context.printer.json {
        let outcome: Value = api.get(&format!("/api/lite/backfills/{}/outcome", created["id"])).await?;
        context.printer.note(outcome["summary"].as_str().unwrap_or_default());
        context.printer.note(format!("List its runs with: leoflow runs list {}", args.dag_id()));
    }
    Ok(0)
}
