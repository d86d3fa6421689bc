//! `leoflow tasks …`.

use super::foreground_run::{self, TaskAction, TestTask};
use super::run_inputs::read_date;
use super::run_view::{InstanceView, RunView, instance, resolve_run};
use super::runs::{confirm_clear, note_older_version, print_cleared};
use super::task_logs::{self, TaskLogs};
use super::task_names;
use crate::api_client::{Api, dag_path, list_of, lite_dag_path};
use crate::args::complete;
use crate::args::rerun_version::RerunVersion;
use crate::args::run_args::{DagArg, RunArgs};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use jiff::Timestamp;
use leoflow_engine::model::keys::Position;
use leoflow_lifecycle::operation::DryRun;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow tasks list hello\n  leoflow tasks logs hello latest greet -f")]
pub enum TasksCommand {
    /// List the tasks of a DAG in topological order
    #[command(after_help = "Example:\n  leoflow tasks list hello")]
    List(DagArg),
    /// Show the state of one task instance
    #[command(after_help = "The run and the task may also be in Airflow's order, with the run last.\n\n\
                      Examples:\n  leoflow tasks state hello latest greet\n  leoflow tasks state hello latest 'work[7]'")]
    State {
        #[command(flatten)]
        run: RunArgs,
        /// The task's id; `work[7]` is instance 7 of a mapped task
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: String,
    },
    /// Show the log of a task instance
    #[command(
        after_help = "Examples:\n  leoflow tasks logs hello latest greet\n  leoflow tasks logs hello latest greet -f\n  \
                      leoflow tasks logs hello RUN_ID greet --try 1"
    )]
    Logs(TaskLogs),
    /// Rerun tasks of a run
    #[command(
        after_help = "Examples:\n  leoflow tasks clear hello latest greet --downstream\n  leoflow tasks clear hello RUN_ID --only-failed --yes\n  \
                      leoflow tasks clear hello -t '^load' -s 2026-01-01 -e 2026-01-31    in every run of these dates"
    )]
    Clear(ClearTasks),
    /// Run one task in this terminal, regardless of its dependencies; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow tasks test hello greet\n  leoflow tasks test hello greet --pdb     open the debugger where it fails"
    )]
    Test(TestTask),
    /// Render a task's template fields and print them
    #[command(after_help = "Example:\n  leoflow tasks render hello greet 2026-01-31")]
    Render(TestTask),
}

#[derive(Args, Debug)]
pub struct ClearTasks {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`; not together with --start-date or --end-date
    #[arg(required_unless_present_any = ["start_date", "end_date", "all_runs"], conflicts_with_all = ["start_date", "end_date"], add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: Option<String>,
    /// The tasks' ids; `work[7]` is instance 7 of a mapped task [default: all tasks]
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_ids: Vec<String>,
    /// Only tasks whose id matches this regular expression
    #[arg(long, short)]
    pub task_regex: Option<String>,
    /// Tasks of every run whose logical date is this date or later
    #[arg(long, short)]
    pub start_date: Option<String>,
    /// Tasks of every run whose logical date is this date or earlier
    #[arg(long, short)]
    pub end_date: Option<String>,
    /// Tasks of every run, as Airflow's CLI does without dates
    #[arg(long, hide = true)]
    pub all_runs: bool,
    /// Only running tasks
    #[arg(long, short = 'r', conflicts_with = "only_failed")]
    pub only_running: bool,
    /// Also all downstream tasks
    #[arg(long, short)]
    pub downstream: bool,
    /// Also all upstream tasks
    #[arg(long, short)]
    pub upstream: bool,
    /// Only tasks that failed or did not run because an upstream task failed
    #[arg(long, short = 'f')]
    pub only_failed: bool,
    /// Only this instance of a mapped task, counted from 0
    #[arg(long, requires = "task_ids", value_parser = clap::value_parser!(i32).range(0..))]
    pub map_index: Option<i32>,
    #[command(flatten)]
    pub version: RerunVersion,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
}

pub async fn run(context: &Context<'_>, command: &TasksCommand) -> Result<u8, Error> {
    match command {
        TasksCommand::List(DagArg { dag_id }) => list(context, dag_id).await,
        TasksCommand::State { run, task_id } => state(context, run, task_id).await,
        TasksCommand::Logs(args) => task_logs::run(context, args).await,
        TasksCommand::Clear(args) => clear(context, args).await,
        TasksCommand::Test(args) => foreground_run::task(context, args, TaskAction::Run).await,
        TasksCommand::Render(args) => foreground_run::task(context, args, TaskAction::Render).await,
    }
}

async fn list(context: &Context<'_>, dag_id: &str) -> Result<u8, Error> {
    let dag: Value = context.api().get(&lite_dag_path(dag_id)).await?;
    let entry = |task: &Value| json!({"task_id": task["task_id"], "operator": task["operator_name"], "upstream": task["upstream"]});
    let tasks: Vec<Value> = list_of(&dag["tasks"]).map(entry).collect();
    context.printer.show(&json!({"tasks": tasks}), |printer| {
        tasks.iter().for_each(|task| printer.line(task["task_id"].as_str().unwrap_or_default()));
    })
}

/// Prints the state of a task instance and nothing else. Airflow's order of the arguments, with the run last, works too;
/// an error is about ours.
async fn state(context: &Context<'_>, run: &RunArgs, name: &str) -> Result<u8, Error> {
    let in_airflows_order = RunArgs { dag_id: run.dag_id.clone(), run_id: name.to_owned() };
    match state_of(context, run, name).await {
        Err(error) => state_of(context, &in_airflows_order, &run.run_id).await.map_err(|_| error),
        printed => printed,
    }
}

async fn state_of(context: &Context<'_>, run: &RunArgs, name: &str) -> Result<u8, Error> {
    let api = context.api();
    let run = RunView::get(&api, &run.dag_id, &resolve_run(&api, run).await?).await?;
    let InstanceView { task_id, position, state, .. } = instance(&run, name, None)?;
    let map_index = position.map_index();
    context.printer.show(&json!({"task_id": task_id, "map_index": map_index, "state": state}), |printer| {
        printer.line(state.as_deref().unwrap_or("none"));
    })
}

async fn clear(context: &Context<'_>, args: &ClearTasks) -> Result<u8, Error> {
    let api = context.api();
    let request = ClearRequest { api: &api, args, tasks: tasks_to_clear(&api, args).await? };
    let runs = match args.run_id.clone() {
        Some(run_id) => vec![resolve_run(&api, &RunArgs { dag_id: args.dag_id.clone(), run_id }).await?],
        None => runs_between(&api, args).await?,
    };
    match runs.as_slice() {
        [run_id] => clear_in_run(context, &request, run_id).await,
        runs => clear_in_runs(context, &request, runs).await,
    }
}

/// The tasks to clear in one run or in several.
struct ClearRequest<'a> {
    api: &'a Api<'a>,
    args: &'a ClearTasks,
    /// In the API's form; `None` means all.
    tasks: Option<Vec<Value>>,
}

impl ClearRequest<'_> {
    /// Clears the tasks in one run, or with a dry run returns what that would change.
    async fn clear(&self, run_id: &str, dry_run: DryRun) -> Result<Value, Error> {
        let args = self.args;
        let body = json!({
            "dry_run": dry_run == DryRun::Yes, "only_failed": args.only_failed, "only_running": args.only_running,
            "task_ids": self.tasks, "dag_run_id": run_id, "include_upstream": args.upstream,
            "include_downstream": args.downstream, "run_on_latest_version": args.version.requested(),
        });
        self.api.post(&format!("{}/clearTaskInstances", dag_path(&args.dag_id)), &body).await
    }
}

async fn clear_in_run(context: &Context<'_>, request: &ClearRequest<'_>, run_id: &str) -> Result<u8, Error> {
    let dag_id = &request.args.dag_id;
    let plan = request.clear(run_id, DryRun::Yes).await?;
    if !confirm_clear(context, (dag_id, run_id), &plan, request.args.yes.into())? {
        return Ok(1);
    }
    request.clear(run_id, DryRun::No).await?;
    let run = RunView::get(request.api, dag_id, run_id).await?;
    print_cleared(context, (dag_id, run_id), &plan, &run.state.into())?;
    note_older_version(context, request.api, dag_id, run_id).await?;
    Ok(0)
}

async fn clear_in_runs(context: &Context<'_>, request: &ClearRequest<'_>, runs: &[String]) -> Result<u8, Error> {
    let dag_id = &request.args.dag_id;
    let mut counts = Vec::new();
    for run_id in runs {
        let count = list_of(&request.clear(run_id, DryRun::Yes).await?["task_instances"]).count();
        if count > 0 {
            counts.push((run_id, count));
        }
    }
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return Err(Error::failed("no matching tasks to rerun").hint(format!("leoflow runs list {dag_id}")));
    }
    let (tasks_text, runs_text) = (counted(total, "task"), counted(counts.len(), "run"));
    if !context.confirm(&format!("Rerun {tasks_text} in {runs_text} of {dag_id}?"), request.args.yes.into())? {
        context.printer.line(Context::DECLINED);
        return Ok(1);
    }
    for (run_id, _) in &counts {
        request.clear(run_id, DryRun::No).await?;
    }
    let ids: Vec<&String> = counts.iter().map(|(run_id, _)| *run_id).collect();
    context.printer.show(&json!({"dag_id": dag_id, "dag_run_ids": ids, "cleared": total}), |printer| {
        printer.line(format!("Cleared {tasks_text} in {runs_text} of {dag_id}"));
    })
}

/// Returns the tasks to clear in the API's form: ids, or pairs of an id and a map index. `None` means all.
async fn tasks_to_clear(api: &Api<'_>, args: &ClearTasks) -> Result<Option<Vec<Value>>, Error> {
    let mut tasks = Vec::new();
    for name in &args.task_ids {
        tasks.push(match task_names::instance_name(name, args.map_index)? {
            (task_id, Position::ONLY) => json!(task_id),
            (task_id, position) => json!([task_id, position.stored()]),
        });
    }
    let Some(expression) = &args.task_regex else { return Ok((!tasks.is_empty()).then_some(tasks)) };
    let regex = regex::Regex::new(expression)
        .map_err(|error| Error::usage(format!("--task-regex: {error}")).hint("for example -t '^load'"))?;
    let dag: Value = api.get(&lite_dag_path(&args.dag_id)).await?;
    let matching_ids =
        list_of(&dag["tasks"]).filter_map(|task| task["task_id"].as_str()).filter(|id| regex.is_match(id));
    tasks.extend(matching_ids.map(|id| json!(id)));
    if tasks.is_empty() {
        return Err(Error::failed(format!("no task of {} matches {expression:?}", args.dag_id))
            .hint(format!("leoflow tasks list {}", args.dag_id)));
    }
    Ok(Some(tasks))
}

/// Returns the ids of the runs whose logical date is between the two dates, both included; of all without dates.
async fn runs_between(api: &Api<'_>, args: &ClearTasks) -> Result<Vec<String>, Error> {
    let date =
        |option, date_text: &Option<String>| date_text.as_deref().map(|text| read_date(option, text)).transpose();
    let (start, end) = (date("--start-date", &args.start_date)?, date("--end-date", &args.end_date)?);
    let is_between = |run: &&Value| {
        if start.is_none() && end.is_none() {
            return true;
        }
        let logical_date: Option<Timestamp> = run["logical_date"].as_str().and_then(|text| text.parse().ok());
        logical_date.is_some_and(|logical_date| {
            start.is_none_or(|start| logical_date >= start) && end.is_none_or(|end| logical_date <= end)
        })
    };
    let path = format!("{}/dagRuns", dag_path(&args.dag_id));
    let runs = api.all(&path, "&order_by=logical_date", "dag_runs").await?;
    let run_id = |run: &Value| run["dag_run_id"].as_str().map(str::to_owned);
    let ids: Vec<String> = runs.iter().filter(is_between).filter_map(run_id).collect();
    if ids.is_empty() {
        let which = if start.or(end).is_some() { " for these dates" } else { "" };
        return Err(Error::failed(format!("{} has no runs{which}", args.dag_id))
            .hint(format!("leoflow runs list {}", args.dag_id)));
    }
    Ok(ids)
}
