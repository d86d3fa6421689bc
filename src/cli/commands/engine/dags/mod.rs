//! `leoflow dags …`.

pub mod list;
pub mod plan;
pub mod refresh;
pub mod report;
pub mod trigger;

use super::foreground_run::{self, Test};
use crate::api_client::{cell, dag_path, encode, joined, list_of, lite_dag_path, texts};
use crate::args::complete;
use crate::args::run_args::DagArg;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use list::ListDags;
use plan::Plan;
use serde_json::{Value, json};
use trigger::Trigger;

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow dags list\n  leoflow dags trigger hello --wait")]
pub enum DagsCommand {
    /// List all DAGs, their last runs, and files that fail to import
    #[command(after_help = "Examples:\n  leoflow dags list\n  leoflow dags list --json")]
    List(ListDags),
    /// Show one DAG with its tasks and last runs
    #[command(after_help = "Example:\n  leoflow dags show hello")]
    Show(DagArg),
    /// Pause a DAG: no new runs or tasks start
    #[command(after_help = "Example:\n  leoflow dags pause hello")]
    Pause(DagArg),
    /// Unpause a DAG: its runs and tasks may start
    #[command(after_help = "Example:\n  leoflow dags unpause hello")]
    Unpause(DagArg),
    /// Trigger a run of a DAG
    #[command(
        after_help = "Examples:\n  leoflow dags trigger hello --wait\n  leoflow dags trigger hello --conf '{\"name\": \"Ada\"}'"
    )]
    Trigger(Trigger),
    /// Show when the next runs of a DAG are due
    #[command(
        name = "next-execution",
        after_help = "Examples:\n  leoflow dags next-execution report\n  leoflow dags next-execution report -n 5"
    )]
    NextExecution {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The number of runs to show
        #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        num_executions: u32,
    },
    /// List DAG files that fail to import, with their errors; exits 1 when there are any
    #[command(name = "list-import-errors", after_help = "Example:\n  leoflow dags list-import-errors")]
    ListImportErrors,
    /// Show each DAG file's import time and DAGs
    #[command(after_help = "Example:\n  leoflow dags report")]
    Report,
    /// Run a DAG in this terminal without the scheduler; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow dags test hello\n  leoflow dags test hello 2026-01-31         run it for this date\n  leoflow dags test hello --pdb              open the debugger where a task fails\n  \
                      leoflow dags test hello --file other/dag.py"
    )]
    Test(Test),
    /// Plan a run whose tasks another process runs (started by `DAG.test()`)
    #[command(hide = true, after_help = "Example:\n  leoflow dags plan sales/dag.py")]
    Plan(Plan),
    /// Print the source of a DAG's file as it was imported
    #[command(after_help = "Examples:\n  leoflow dags source hello\n  leoflow dags source hello --version 1")]
    Source {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The DAG version [default: the current one]
        #[arg(long)]
        version: Option<u32>,
    },
    /// Delete a DAG and its history; if its file still exists, the DAG returns without history
    #[command(after_help = "Example:\n  leoflow dags delete old_dag")]
    Delete {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
    },
}

pub async fn run(context: &Context<'_>, command: &DagsCommand) -> Result<u8, Error> {
    match command {
        DagsCommand::List(args) => list::run(context, args).await,
        DagsCommand::Show(DagArg { dag_id }) => show(context, dag_id).await,
        DagsCommand::Pause(DagArg { dag_id }) => pause(context, dag_id, true).await,
        DagsCommand::Unpause(DagArg { dag_id }) => pause(context, dag_id, false).await,
        DagsCommand::Trigger(args) => trigger::run(context, args).await,
        DagsCommand::Test(args) => foreground_run::run(context, args).await,
        DagsCommand::Plan(args) => plan::run(context, args),
        DagsCommand::NextExecution { dag_id, num_executions } => next_execution(context, dag_id, *num_executions).await,
        DagsCommand::ListImportErrors => report::import_errors(context).await,
        DagsCommand::Report => report::run(context).await,
        DagsCommand::Source { dag_id, version } => source(context, dag_id, *version).await,
        DagsCommand::Delete { dag_id, yes } => delete(context, dag_id, (*yes).into()).await,
    }
}

async fn next_execution(context: &Context<'_>, dag_id: &str, count: u32) -> Result<u8, Error> {
    let api = context.api();
    refresh::refresh(context, &api, dag_id).await?;
    let response: Value = api.get(&format!("{}/next?count={count}", lite_dag_path(dag_id))).await?;
    let dag: Value = api.get(&dag_path(dag_id)).await?;
    let names = ["next_dagrun_logical_date", "next_dagrun_run_after"];
    let mut result: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), dag[*name].clone())).collect();
    result.insert("next".to_owned(), response["next"].clone());
    context.printer.show(&result, |printer| {
        let next: Vec<&Value> = list_of(&response["next"]).collect();
        next.iter().for_each(|entry| printer.line(printer.time(entry["run_after"].as_str())));
        if next.is_empty() {
            printer.note(format!("{dag_id} has no further scheduled runs"));
        } else if next.len() < count as usize {
            printer.note("No further runs are known now.");
        }
        if dag["is_paused"] == true {
            printer.note(format!("The DAG is paused; unpause it with: leoflow dags unpause {dag_id}"));
        }
    })
}

/// Prints a DAG with its tasks and last ten runs.
async fn show(context: &Context<'_>, dag_id: &str) -> Result<u8, Error> {
    let dag: Value = context.api().get(&lite_dag_path(dag_id)).await?;
    context.printer.show(&dag, |printer| {
        let paused = if dag["is_paused"] == true { "  (paused)" } else { "" };
        printer.line(format!("{}{paused}", printer.paint("1", dag_id)));
        for (label, value) in [
            ("description", cell(&dag["description"])),
            ("schedule", cell(&dag["schedule"])),
            ("next run", printer.time(dag["next_run_after"].as_str())),
            ("file", cell(&dag["fileloc"])),
            ("version", dag["version_number"].to_string()),
        ] {
            printer.line(format!("  {label:<12} {value}"));
        }
        if let Some(error) = dag["import_error"].as_str() {
            printer.warning(format!("its file fails to import; the previous version stays in use\n{error}"));
        }
        let task = |task: &Value| {
            let field = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
            [field("task_id"), field("operator_name"), joined(&task["upstream"])]
        };
        printer.table(&["TASK", "OPERATOR", "UPSTREAM"], list_of(&dag["tasks"]).map(task));
        for pool in texts(&dag["unknown_pools"]) {
            printer.warning(format!("tasks wait, because there is no pool {pool}: leoflow pools set {pool} 8"));
        }
        if dag["is_schedule_stalled"] == true {
            printer.warning("its schedule makes no progress; see `leoflow lite logs server`");
        }
        let run = |run: &Value| {
            let time = |name: &str| printer.time(run[name].as_str());
            [cell(&run["dag_run_id"]), cell(&run["state"]), time("start_date"), time("end_date")]
        };
        let runs: Vec<_> = list_of(&dag["runs"]).take(10).map(run).collect();
        if !runs.is_empty() {
            printer.line("");
            printer.table(&["RUN", "STATE", "STARTED", "ENDED"], runs);
        }
    })
}

async fn pause(context: &Context<'_>, dag_id: &str, is_paused: bool) -> Result<u8, Error> {
    let api = context.api();
    if !is_paused {
        refresh::refresh(context, &api, dag_id).await?;
    }
    let _: Value = api.patch(&dag_path(dag_id), &json!({"is_paused": is_paused})).await?;
    context.printer.show(&json!({"dag_id": dag_id, "is_paused": is_paused}), |printer| {
        printer.line(format!("{dag_id} is {}", if is_paused { "paused" } else { "active" }));
    })
}

async fn source(context: &Context<'_>, dag_id: &str, version: Option<u32>) -> Result<u8, Error> {
    let query = version.map(|number| format!("?version_number={number}")).unwrap_or_default();
    let response: Value = context.api().get(&format!("/api/v2/dagSources/{}{query}", encode(dag_id))).await?;
    context.printer.show(&response, |printer| printer.raw(response["content"].as_str().unwrap_or_default()))
}

async fn delete(context: &Context<'_>, dag_id: &str, confirmation: Confirmation) -> Result<u8, Error> {
    let (api, path) = (context.api(), dag_path(dag_id));
    let _: Value = api.get(&path).await?;
    let runs: Value = api.get(&format!("{path}/dagRuns?limit=0")).await?;
    let runs = counted(&runs["total_entries"], "run");
    if !context.confirm(&format!("Delete {dag_id} with {runs} and all tasks and XComs?"), confirmation)? {
        context.printer.line(Context::DECLINED);
        return Ok(1);
    }
    api.delete(&path).await?;
    let shape = json!({"dag_id": dag_id, "deleted": true});
    context.printer.show(&shape, |printer| printer.line(format!("Deleted {dag_id}")))
}
