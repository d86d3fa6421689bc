//! `leoflow runs …`.

use super::dags::trigger::finish;
use super::follow_run;
use super::run_inputs::read_date;
use super::run_view::{RunView, exact_run, resolve_run};
use super::task_names;
use crate::api_client::{Api, cell, dag_path, encode, list_of, run_path};
use crate::args::complete;
use crate::args::rerun_version::RerunVersion;
use crate::args::run_args::RunArgs;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs show hello latest")]
pub enum RunsCommand {
    /// List the runs of a DAG, newest first
    #[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs list hello --state failed\n  \
                      leoflow runs list hello -s 2026-01-01 -e 2026-01-31")]
    List {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// Only runs in this state [default: all states]
        #[arg(long, value_parser = ["queued", "running", "success", "failed"])]
        state: Option<String>,
        /// Only runs whose logical date is this date or later
        #[arg(long, short)]
        start_date: Option<String>,
        /// Only runs whose logical date is this date or earlier
        #[arg(long, short)]
        end_date: Option<String>,
        /// Leave out the runs of backfills
        #[arg(long)]
        no_backfill: bool,
        /// The maximum number of runs to list
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one run with its tasks
    #[command(after_help = "Examples:\n  leoflow runs show hello latest\n  leoflow runs show hello RUN_ID --json")]
    Show(RunArgs),
    /// Follow a run until it ends; exits 1 when it fails
    #[command(after_help = "Example:\n  leoflow runs watch hello latest")]
    Watch(RunArgs),
    /// Rerun a run's tasks
    #[command(
        after_help = "Examples:\n  leoflow runs clear hello latest --only-failed\n  leoflow runs clear hello RUN_ID --run-on-latest-version --yes"
    )]
    Clear {
        #[command(flatten)]
        run: RunArgs,
        /// Only tasks that failed or did not run because an upstream task failed
        #[arg(long, short = 'f')]
        only_failed: bool,
        #[command(flatten)]
        version: RerunVersion,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
    },
    /// Delete a finished run with its tasks and XComs
    #[command(after_help = "Example:\n  leoflow runs delete hello RUN_ID")]
    Delete {
        #[command(flatten)]
        run: RunArgs,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
    },
    /// Cancel a run: stop its running tasks, skip the others and mark the run failed
    #[command(after_help = "Example:\n  leoflow runs cancel hello latest")]
    Cancel(RunArgs),
}

/// A filter for every run type but `backfill`.
const OTHER_THAN_BACKFILL: &str = "&run_type=scheduled&run_type=manual&run_type=operator_triggered&run_type=asset_triggered&run_type=asset_materialization";

pub async fn run(context: &Context<'_>, command: &RunsCommand) -> Result<u8, Error> {
    let api = context.api();
    match command {
        RunsCommand::List { dag_id, state, start_date, end_date, no_backfill, limit } => {
            let mut filters = state.iter().map(|state| format!("&state={}", encode(state))).collect::<String>();
            for (option, name, date) in [("--start-date", "gte", start_date), ("--end-date", "lte", end_date)] {
                if let Some(date) = date {
                    filters.push_str(&format!("&logical_date_{name}={}", read_date(option, date)?));
                }
            }
            filters.push_str(if *no_backfill { OTHER_THAN_BACKFILL } else { "" });
            list(context, &api, dag_id, &filters, *limit).await
        }
        RunsCommand::Show(run) => {
            let run = RunView::get(&api, &run.dag_id, &resolve_run(&api, run).await?).await?;
            context.printer.show(&run, |printer| run.print(printer))
        }
        RunsCommand::Watch(run) => {
            let run = follow_run::follow(context, &run.dag_id, &resolve_run(&api, run).await?).await?;
            finish(context, &run)
        }
        RunsCommand::Clear { run, only_failed, version, yes } => {
            let run_id = resolve_run(&api, run).await?;
            let body = json!({"only_failed": only_failed, "run_on_latest_version": version.requested()});
            clear(context, &api, (&run.dag_id, &run_id), body, (*yes).into()).await
        }
        RunsCommand::Delete { run, yes } => {
            delete(context, &api, &run.dag_id, &exact_run(&api, run).await?, (*yes).into()).await
        }
        RunsCommand::Cancel(run) => cancel(context, &api, &run.dag_id, &resolve_run(&api, run).await?).await,
    }
}

/// `filters` are parameters of the API.
async fn list(context: &Context<'_>, api: &Api<'_>, dag_id: &str, filters: &str, limit: u32) -> Result<u8, Error> {
    let (mut runs, mut total): (Vec<Value>, u64) = (Vec::new(), 0);
    loop {
        let (remaining, offset) = (limit as usize - runs.len(), runs.len());
        let query = format!("limit={remaining}&offset={offset}&order_by=-run_after{filters}");
        let page: Value = api.get(&format!("{}/dagRuns?{query}", dag_path(dag_id))).await?;
        runs.extend(list_of(&page["dag_runs"]).cloned());
        total = page["total_entries"].as_u64().unwrap_or(total);
        if runs.len() == offset || runs.len() as u64 >= total.min(limit.into()) {
            break;
        }
    }
    context.printer.show(&json!({"dag_runs": runs, "total_entries": total}), |printer| {
        if runs.is_empty() {
            return printer.line(format!("No matching runs of {dag_id}"));
        }
        let row = |run: &Value| {
            let time = |name: &str| printer.time(run[name].as_str());
            [
                cell(&run["dag_run_id"]),
                cell(&run["state"]),
                cell(&run["run_type"]),
                time("start_date"),
                time("end_date"),
            ]
        };
        printer.table(&["RUN", "STATE", "TYPE", "STARTED", "ENDED"], runs.iter().map(row));
        if total > runs.len() as u64 {
            printer.note(format!("Showing {} of {total} runs; show more with --limit", runs.len()));
        }
    })
}

async fn clear(
    context: &Context<'_>,
    api: &Api<'_>,
    (dag_id, run_id): (&str, &str),
    mut body: Value,
    confirmation: Confirmation,
) -> Result<u8, Error> {
    let path = format!("{}/clear", run_path(dag_id, run_id));
    body["dry_run"] = true.into();
    let plan: Value = api.post(&path, &body).await?;
    if !confirm_clear(context, (dag_id, run_id), &plan, confirmation)? {
        return Ok(1);
    }
    body["dry_run"] = false.into();
    let run: Value = api.post(&path, &body).await?;
    print_cleared(context, (dag_id, run_id), &plan, &run["state"])?;
    note_older_version(context, api, dag_id, run_id).await?;
    Ok(0)
}

/// Prints a note if the rerun uses an older version of its DAG.
pub async fn note_older_version(context: &Context<'_>, api: &Api<'_>, dag_id: &str, run_id: &str) -> Result<(), Error> {
    let run: Value = api.get(&run_path(dag_id, run_id)).await?;
    let dag: Value = api.get(&format!("{}/details", dag_path(dag_id))).await?;
    let newest = dag["latest_dag_version"]["version_number"].as_i64();
    let own = list_of(&run["dag_versions"]).last().and_then(|version| version["version_number"].as_i64());
    if let (Some(own), Some(newest)) = (own, newest)
        && own < newest
    {
        context.printer.note(format!(
            "The run keeps version {own} of {dag_id}. Add --run-on-latest-version to rerun it with version {newest}."
        ));
    }
    Ok(())
}

/// Asks whether to rerun the tasks of the plan. Returns false when the user declines.
pub fn confirm_clear(
    context: &Context<'_>,
    (dag_id, run_id): (&str, &str),
    plan: &Value,
    confirmation: Confirmation,
) -> Result<bool, Error> {
    let ids: Vec<String> = list_of(&plan["task_instances"]).map(task_names::name_of).collect();
    if ids.is_empty() {
        return Err(Error::failed("no matching tasks to rerun").hint(format!("leoflow runs show {dag_id} {run_id}")));
    }
    let first_ids: Vec<&str> = ids.iter().take(20).map(String::as_str).collect();
    let remainder =
        if ids.len() > first_ids.len() { format!(" and {} more", ids.len() - first_ids.len()) } else { String::new() };
    let answer = context.confirm(&format!("Rerun {}{remainder}?", first_ids.join(", ")), confirmation)?;
    if !answer {
        context.printer.line(Context::DECLINED);
    }
    Ok(answer)
}

/// Prints the result of a clear; `state` is the new state of the run.
pub fn print_cleared(
    context: &Context<'_>,
    (dag_id, run_id): (&str, &str),
    plan: &Value,
    state: &Value,
) -> Result<u8, Error> {
    let count = list_of(&plan["task_instances"]).count();
    let shape = json!({"dag_id": dag_id, "dag_run_id": run_id, "state": state, "cleared": count});
    context.printer.show(&shape, |printer| {
        printer.line(format!("Cleared {} of {dag_id} {run_id}", counted(count, "task")));
    })
}

async fn delete(
    context: &Context<'_>,
    api: &Api<'_>,
    dag_id: &str,
    run_id: &str,
    confirmation: Confirmation,
) -> Result<u8, Error> {
    let run = RunView::get(api, dag_id, run_id).await?;
    if !run.is_finished() {
        return Err(Error::failed(format!("the run is not finished: it is {}", run.state))
            .hint(format!("leoflow runs cancel {dag_id} {run_id}")));
    }
    let tasks = counted(run.task_instances.len(), "task");
    if !context.confirm(&format!("Delete {run_id} of {dag_id} with {tasks} and their XComs?"), confirmation)? {
        context.printer.line(Context::DECLINED);
        return Ok(1);
    }
    api.delete(&run_path(dag_id, run_id)).await?;
    let shape = json!({"dag_id": dag_id, "dag_run_id": run_id, "deleted": true});
    context.printer.show(&shape, |printer| printer.line(format!("{dag_id}  {run_id}  deleted")))
}

async fn cancel(context: &Context<'_>, api: &Api<'_>, dag_id: &str, run_id: &str) -> Result<u8, Error> {
    let run = RunView::get(api, dag_id, run_id).await?;
    if run.is_finished() {
        return Err(Error::failed(format!("the run is already finished: {}", run.state))
            .hint(format!("leoflow runs show {dag_id} {run_id}")));
    }
    let run: Value = api.patch(&run_path(dag_id, run_id), &json!({"state": "failed"})).await?;
    let shape = json!({"dag_id": dag_id, "dag_run_id": run_id, "state": run["state"]});
    context.printer.show(&shape, |printer| printer.line(format!("{dag_id}  {run_id}  cancelled")))
}
