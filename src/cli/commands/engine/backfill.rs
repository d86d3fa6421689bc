//! `leoflow backfill …`.

use super::run_inputs::{read_conf, read_date};
use crate::api_client::{Api, encode, list_of};
use crate::args::complete;
use crate::args::output::Output;
use crate::args::rerun_version::RerunVersion;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct Backfill {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: BackfillCommand,
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
    let api = Api::new(&context.home);
    match command {
        BackfillCommand::Create(args) => create(context, &api, args).await,
        BackfillCommand::List { dag_id } => {
            let filter = dag_id.as_ref().map(|id| format!("&dag_id={}", encode(id))).unwrap_or_default();
            let response: Value = api.get(&format!("/api/v2/backfills?limit=100{filter}")).await?;
            if context.printer.json {
                context.printer.json(&response)?;
            } else if list_of(&response["backfills"]).next().is_none() {
                context.printer.note("No backfills yet. Create one with `leoflow backfill create`.");
            } else {
                let rows: Vec<_> = list_of(&response["backfills"]).map(|entry| row(context.printer, entry)).collect();
                context.printer.table(&["ID", "DAG", "FROM", "TO", "STATE"], &rows);
            }
            Ok(0)
        }
        BackfillCommand::Pause { id } => change(context, &api, *id, "pause").await,
        BackfillCommand::Unpause { id } => change(context, &api, *id, "unpause").await,
        BackfillCommand::Cancel { id } => change(context, &api, *id, "cancel").await,
    }
}

fn row(printer: &Printer, backfill: &Value) -> Vec<String> {
    let text = |name: &str| backfill[name].as_str().unwrap_or("-").to_owned();
    let time = |name: &str| printer.time(backfill[name].as_str());
    let state = match (backfill["completed_at"].is_string(), backfill["is_paused"] == true) {
        (true, _) => "completed",
        (false, true) => "paused",
        (false, false) => "running",
    };
    vec![backfill["id"].to_string(), text("dag_id"), time("from_date"), time("to_date"), state.to_owned()]
}

/// Pauses, unpauses or cancels a backfill.
async fn change(context: &Context<'_>, api: &Api<'_>, id: i64, action: &str) -> Result<u8, Error> {
    let changed: Value = api.with_bulk_timeout().put(&format!("/api/v2/backfills/{id}/{action}"), &json!({})).await?;
    if context.printer.json {
        context.printer.json(&changed)?;
    } else {
        context.printer.line(row(context.printer, &changed).join("  "));
    }
    Ok(0)
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
        if context.printer.json {
            context.printer.json(&response)?;
        } else {
            for entry in list_of(&response["backfills"]) {
                context.printer.line(context.printer.time(entry["logical_date"].as_str()));
            }
            context.printer.note(format!("Would create {}", counted(&response["total_entries"], "run")));
        }
        return Ok(0);
    }
    // A backfill may have tens of thousands of runs.
    let created: Value = api.with_bulk_timeout().post("/api/v2/backfills", &body).await?;
    if context.printer.json {
        context.printer.json(&created)?;
    } else {
        context.printer.line(row(context.printer, &created).join("  "));
        let outcome: Value = api.get(&format!("/api/lite/backfills/{}/outcome", created["id"])).await?;
        context.printer.note(outcome["summary"].as_str().unwrap_or_default());
        context.printer.note(format!("List its runs with: leoflow runs list {}", args.dag_id()));
    }
    Ok(0)
}
