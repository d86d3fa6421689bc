//! `leoflow db …`.

use crate::args::complete;
use crate::commands::engine::run_inputs::read_date;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::human_size;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use leoflow_engine::store::history::Table;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  leoflow db clean --before 2026-01-31 --dry-run")]
pub enum DbCommand {
    /// Remove old history: finished runs with their tasks, XComs and logs
    #[command(after_help = "The newest run of each DAG stays, as does what unfinished runs and backfills need.\n\n\
                      Examples:\n  leoflow db clean --before 2026-01-31 --dry-run    show what would be removed\n  \
                      leoflow db clean --before 2026-01-31 --archive    keep it in a backup that is test-restored first\n  \
                      leoflow db clean --before 2026-01-31 --tables xcom,log\n  \
                      leoflow db clean    remove what the settings history.keep_days and history.keep_runs do not keep")]
    Clean(Clean),
}

#[derive(Args, Debug)]
pub struct Clean {
    /// Remove history that is older than this date [default: the limits of the settings]
    #[arg(long, alias = "clean-before-timestamp", value_name = "DATE")]
    before: Option<String>,
    /// Only the history of these DAGs, separated by commas [default: all DAGs]
    #[arg(
        long = "dag",
        alias = "dag-ids",
        value_name = "DAG_ID",
        value_delimiter = ',',
        add = ArgValueCompleter::new(complete::dag_ids)
    )]
    dag_ids: Vec<String>,
    /// Not the history of these DAGs
    #[arg(long, value_name = "DAG_ID", value_delimiter = ',', add = ArgValueCompleter::new(complete::dag_ids))]
    exclude_dag_ids: Vec<String>,
    /// Only these tables, by Airflow's names; dag_run includes the tasks of the runs [default: all]
    #[arg(long, short, value_delimiter = ',')]
    tables: Vec<String>,
    /// Create a backup and test-restore it before anything is removed
    #[arg(long)]
    archive: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    yes: bool,
}

const CLEAN: &str = "/api/lite/history/clean";
/// Interval of reading the progress.
const POLL: Duration = Duration::from_millis(250);

pub async fn run(context: &Context<'_>, DbCommand::Clean(args): &DbCommand) -> Result<u8, Error> {
    let api = context.api().with_bulk_timeout();
    if let Some(unknown) = args.tables.iter().find(|name| Table::parse(name).is_none()) {
        let known: Vec<&str> = Table::ALL.iter().map(|table| table.name()).collect();
        let reason = format!("--tables: {unknown:?} is not one of {}", known.join(", "));
        return Err(Error::usage(reason).hint("dag_run includes the task instances, tries and XComs of a run"));
    }
    let before = args.before.as_deref().map(|date| read_date("--before", date)).transpose()?;
    let request = json!({
        "before": before, "dag_ids": args.dag_ids, "exclude_dag_ids": args.exclude_dag_ids, "tables": args.tables,
        "archive": args.archive,
    });
    let plan: Value = api.post(&format!("{CLEAN}/preview"), &request).await?;
    if args.dry_run || is_empty(&plan) {
        let shape = json!({"removed": plan, "dry_run": args.dry_run, "archive": null});
        return context.printer.show(&shape, |printer| {
            if is_empty(&plan) {
                return printer.line("Nothing is old enough to be removed");
            }
            printer.line("Would remove:");
            lines(&plan).iter().for_each(|line| printer.line(line));
        });
    }
    context.printer.part(|printer| lines(&plan).iter().for_each(|line| printer.note(line)));
    context.require_confirmation("Remove this history?", args.yes.into())?;
    let started: Value = api.post(CLEAN, &request).await?;
    let progress = loop {
        let progress: Value = api.get(CLEAN).await?;
        if progress["started_at"] != started["started_at"] {
            return Err(Error::failed("the server was restarted during the clean-up")
                .hint("whole runs were removed, the others stay; run the command again"));
        }
        if progress["is_running"] != true {
            break progress;
        }
        let step = progress["step"].as_str().unwrap_or_default();
        context.printer.progress(&format!("{step} ({} of {} runs)", progress["done"], progress["runs"]));
        tokio::time::sleep(POLL).await;
    };
    if let Some(error) = progress["error"].as_str() {
        return Err(Error::failed(error).hint("leoflow lite logs server"));
    }
    let shape = json!({"removed": progress["removed"], "dry_run": false, "archive": progress["archive"]});
    context.printer.show(&shape, |printer| {
        printer.line("Removed:");
        lines(&progress["removed"]).iter().for_each(|line| printer.line(line));
        if let Some(archive) = progress["archive"].as_str() {
            printer.line(format!("The archive {archive} holds the removed rows."));
        }
    })
}

fn is_empty(removed: &Value) -> bool {
    lines(removed).is_empty()
}

/// A line for each table with rows, and for the task logs.
fn lines(removed: &Value) -> Vec<String> {
    let rows = removed["rows"].as_object().into_iter().flatten();
    let mut lines: Vec<String> =
        rows.map(|(table, count)| format!("  {:>10}  {table}", count.as_u64().unwrap_or(0))).collect();
    if let Some(bytes @ 1..) = removed["task_logs_bytes"].as_u64() {
        lines.push(format!("  {:>10}  of task logs", human_size(bytes)));
    }
    lines
}
