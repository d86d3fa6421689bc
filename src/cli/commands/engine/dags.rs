//! `leoflow dags …`.

use super::dags_report;
use super::foreground_run;
use super::run_inputs::{read_conf, read_date};
use super::run_view::{self, RunView, colour};
use crate::api_client::{Api, encode, list_of};
use crate::args::engine::{DagsCommand, Trigger};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// The server's list of DAGs.
#[derive(Deserialize)]
struct Overview {
    dags: Vec<DagView>,
    import_errors: Vec<ImportErrorView>,
    being_built: Vec<BeingBuilt>,
}

/// An environment that is being built, and the DAG files that wait for it.
#[derive(Deserialize)]
struct BeingBuilt {
    files: Vec<String>,
    requirements: Vec<String>,
}

#[derive(Deserialize)]
struct DagView {
    dag_id: String,
    is_paused: bool,
    is_stale: bool,
    fileloc: String,
    schedule: Option<String>,
    last_run_state: Option<String>,
    import_error: Option<String>,
}

#[derive(Deserialize)]
struct ImportErrorView {
    filename: String,
    stack_trace: String,
}

pub async fn run(context: &Context<'_>, command: &DagsCommand) -> Result<u8, Error> {
    match command {
        DagsCommand::List { all } => list(context, *all).await,
        DagsCommand::Show { dag_id } => show(context, dag_id).await,
        DagsCommand::Pause { dag_id } => pause(context, dag_id, true).await,
        DagsCommand::Unpause { dag_id } => pause(context, dag_id, false).await,
        DagsCommand::Trigger(args) => trigger(context, args).await,
        DagsCommand::Test(args) => foreground_run::run(context, args).await,
        DagsCommand::NextExecution { dag_id, num_executions } => next_execution(context, dag_id, *num_executions).await,
        DagsCommand::ListImportErrors => dags_report::import_errors(context).await,
        DagsCommand::Report => dags_report::run(context).await,
        DagsCommand::Source { dag_id, version } => source(context, dag_id, *version).await,
        DagsCommand::Delete { dag_id, yes } => delete(context, dag_id, *yes).await,
    }
}

async fn next_execution(context: &Context<'_>, dag_id: &str, count: u32) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let dag: Value = api.get(&format!("/api/v2/dags/{}", encode(dag_id))).await?;
    let response: Value = api.get(&format!("/api/lite/dags/{}/next?count={count}", encode(dag_id))).await?;
    if context.printer.json {
        let names = ["next_dagrun_logical_date", "next_dagrun_run_after"];
        let mut result: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), dag[*name].clone())).collect();
        result.insert("next".to_owned(), response["next"].clone());
        context.printer.json(&result)?;
    } else {
        let next: Vec<&Value> = list_of(&response["next"]).collect();
        for entry in &next {
            context.printer.line(context.printer.time(entry["run_after"].as_str()));
        }
        if next.is_empty() {
            context.printer.note(format!("{dag_id} has no further scheduled runs"));
        } else if next.len() < count as usize {
            context.printer.note("No further runs are known now.");
        }
        if dag["is_paused"] == true {
            context.printer.note(format!("The DAG is paused; unpause it with: leoflow dags unpause {dag_id}"));
        }
    }
    Ok(0)
}

async fn list(context: &Context<'_>, all: bool) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let overview: Overview = api.get(&format!("/api/lite/dags?all={all}")).await?;
    if context.printer.json {
        context.printer.json(&overview_json(&overview))?;
        return Ok(0);
    }
    let workspace = context.config()?.and_then(|loaded| loaded.config.workspace).unwrap_or_default();
    if overview.dags.is_empty() && overview.import_errors.is_empty() && overview.being_built.is_empty() {
        context.printer.line(format!("No DAGs in {} yet", workspace.display()));
        context.printer.note("Create one with `leoflow init DIR`.");
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = overview.dags.iter().map(|dag| row(dag, &workspace)).collect();
    context.printer.table(&["DAG", "STATE", "SCHEDULE", "LAST RUN", "FILE"], &rows);
    print_import_errors(context, &overview.import_errors);
    print_being_built(context, &overview.being_built);
    Ok(0)
}

/// The stable shape of `dags list --json`.
fn overview_json(overview: &Overview) -> Value {
    let dag_entry = |dag: &DagView| {
        json!({
            "dag_id": dag.dag_id, "is_paused": dag.is_paused, "fileloc": dag.fileloc,
            "schedule": dag.schedule, "last_run_state": dag.last_run_state, "import_error": dag.import_error,
        })
    };
    let error_entry = |error: &ImportErrorView| json!({"filename": error.filename, "stack_trace": error.stack_trace});
    json!({
        "dags": overview.dags.iter().map(dag_entry).collect::<Vec<_>>(),
        "import_errors": overview.import_errors.iter().map(error_entry).collect::<Vec<_>>(),
    })
}

fn row(dag: &DagView, workspace: &Path) -> Vec<String> {
    let state = match (dag.is_stale, dag.is_paused) {
        (true, _) => "file missing",
        (false, true) => "paused",
        (false, false) => "active",
    };
    let fileloc = Path::new(&dag.fileloc);
    vec![
        dag.dag_id.clone(),
        if dag.import_error.is_some() { format!("{state}, import error") } else { state.to_owned() },
        dag.schedule.clone().unwrap_or_else(|| "-".to_owned()),
        dag.last_run_state.clone().unwrap_or_else(|| "-".to_owned()),
        fileloc.strip_prefix(workspace).unwrap_or(fileloc).display().to_string(),
    ]
}

fn print_import_errors(context: &Context<'_>, errors: &[ImportErrorView]) {
    for error in errors {
        let problem = if error.filename.ends_with(".py") { "fails to import" } else { "was not scanned completely" };
        context.printer.warning(format!("{} {problem}:", error.filename));
        for line in error.stack_trace.lines() {
            context.printer.note(format!("  {line}"));
        }
    }
}

/// Prints the projects whose environment is being built.
fn print_being_built(context: &Context<'_>, being_built: &[BeingBuilt]) {
    for entry in being_built {
        let packages = entry.requirements.join(", ");
        context.printer.note(format!("Building the environment of {} ({packages})", entry.files.join(", ")));
    }
}

/// Prints a DAG with its tasks and last ten runs.
async fn show(context: &Context<'_>, dag_id: &str) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let dag: Value = api.get(&format!("/api/lite/dags/{}", encode(dag_id))).await?;
    if context.printer.json {
        context.printer.json(&dag)?;
        return Ok(0);
    }
    let text = |name: &str| dag[name].as_str().unwrap_or("-").to_owned();
    let printer = context.printer;
    let paused = if dag["is_paused"].as_bool() == Some(true) { "  (paused)" } else { "" };
    printer.line(format!("{}{paused}", printer.paint("1", dag_id)));
    for (label, value) in [
        ("description", text("description")),
        ("schedule", text("schedule")),
        ("next run", printer.time(dag["next_run_after"].as_str())),
        ("file", text("fileloc")),
        ("version", dag["version_number"].to_string()),
    ] {
        printer.line(format!("  {label:<12} {value}"));
    }
    if let Some(error) = dag["import_error"].as_str() {
        printer.warning(format!("its file fails to import; the previous version stays in use\n{error}"));
    }
    let tasks: Vec<Vec<String>> = list_of(&dag["tasks"])
        .map(|task| {
            let upstream: Vec<&str> = list_of(&task["upstream"]).filter_map(Value::as_str).collect();
            let field = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
            vec![field("task_id"), field("operator_name"), upstream.join(", ")]
        })
        .collect();
    printer.table(&["TASK", "OPERATOR", "UPSTREAM"], &tasks);
    let runs: Vec<Vec<String>> = list_of(&dag["runs"])
        .take(10)
        .map(|run| {
            let field = |name: &str| run[name].as_str().unwrap_or("-").to_owned();
            let time = |name: &str| printer.time(run[name].as_str());
            vec![field("dag_run_id"), field("state"), time("start_date"), time("end_date")]
        })
        .collect();
    if !runs.is_empty() {
        printer.line("");
        printer.table(&["RUN", "STATE", "STARTED", "ENDED"], &runs);
    }
    Ok(0)
}

async fn pause(context: &Context<'_>, dag_id: &str, is_paused: bool) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let _: Value = api.patch(&format!("/api/v2/dags/{}", encode(dag_id)), &json!({"is_paused": is_paused})).await?;
    if context.printer.json {
        context.printer.json(&json!({"dag_id": dag_id, "is_paused": is_paused}))?;
        return Ok(0);
    }
    context.printer.line(format!("{dag_id} is {}", if is_paused { "paused" } else { "active" }));
    Ok(0)
}

/// Creates a run and, with `--wait`, follows it.
async fn trigger(context: &Context<'_>, args: &Trigger) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let dag_id = &args.dag_id;
    let conf = read_conf(args.conf.as_deref())?;
    let logical_date = args
        .logical_date
        .as_deref()
        .map(|text| read_date("--logical-date", text))
        .transpose()?
        .map(|date| date.to_string());
    let dag: Value = api.get(&format!("/api/v2/dags/{}", encode(dag_id))).await?;
    let is_paused = dag["is_paused"].as_bool().unwrap_or(false);
    if args.unpause && is_paused {
        let _: Value = api.patch(&format!("/api/v2/dags/{}", encode(dag_id)), &json!({"is_paused": false})).await?;
    } else if is_paused && args.wait {
        return Err(Error::failed(format!("{dag_id} is paused, so its runs do not start"))
            .hint(format!("leoflow dags trigger {dag_id} --wait --unpause")));
    }
    let mut body = json!({"dag_run_id": args.run_id, "logical_date": logical_date, "conf": conf});
    if let Some(key) = &args.partition_key {
        body["partition_key"] = key.as_str().into();
    }
    let run: Value = api.post(&format!("/api/v2/dags/{}/dagRuns", encode(dag_id)), &body).await?;
    let run_id = run["dag_run_id"].as_str().unwrap_or_default();
    if !args.wait {
        if context.printer.json {
            let shape = json!({"dag_id": dag_id, "dag_run_id": run_id, "state": run["state"]});
            context.printer.json(&shape)?;
            return Ok(0);
        }
        context.printer.line(format!("{dag_id}  {run_id}  queued"));
        if is_paused && !args.unpause {
            context
                .printer
                .warning(format!("{dag_id} is paused; the run starts after `leoflow dags unpause {dag_id}`"));
        }
        return Ok(0);
    }
    if !context.printer.json {
        context.printer.note(format!("{dag_id}  {run_id}"));
    }
    let run = run_view::follow(context, dag_id, run_id).await?;
    finish(context, &run)
}

/// Prints the final state of a run; fails when the run failed.
pub fn finish(context: &Context<'_>, run: &RunView) -> Result<u8, Error> {
    if context.printer.json {
        let shape = json!({"dag_id": run.dag_id, "dag_run_id": run.dag_run_id, "state": run.state});
        context.printer.json(&shape)?;
    } else {
        let state = context.printer.paint(colour(&run.state), &run.state);
        context.printer.line(format!("{}  {}  {state}", run.dag_id, run.dag_run_id));
    }
    if run.state == "failed" { Err(run.failure()) } else { Ok(0) }
}

async fn source(context: &Context<'_>, dag_id: &str, version: Option<u32>) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let query = version.map(|number| format!("?version_number={number}")).unwrap_or_default();
    let response: Value = api.get(&format!("/api/v2/dagSources/{}{query}", encode(dag_id))).await?;
    if context.printer.json {
        context.printer.json(&response)?;
    } else {
        context.printer.raw(response["content"].as_str().unwrap_or_default());
    }
    Ok(0)
}

async fn delete(context: &Context<'_>, dag_id: &str, yes: bool) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let path = format!("/api/v2/dags/{}", encode(dag_id));
    let _: Value = api.get(&path).await?;
    let runs: Value = api.get(&format!("{path}/dagRuns?limit=0")).await?;
    let runs = counted(&runs["total_entries"], "run");
    if !context.confirm(&format!("Delete {dag_id} with {runs} and all tasks and XComs?"), yes)? {
        context.printer.line(Context::DECLINED);
        return Ok(1);
    }
    api.delete(&path).await?;
    if context.printer.json {
        context.printer.json(&json!({"dag_id": dag_id, "deleted": true}))?;
        return Ok(0);
    }
    context.printer.line(format!("Deleted {dag_id}"));
    Ok(0)
}
