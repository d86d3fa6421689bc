//! `leoflow hitl …`: human-in-the-loop tasks.

use super::run_view::resolve_run;
use super::task_names;
use crate::api_client::{Api, cell, encode, joined, run_path};
use crate::args::complete;
use crate::args::run_args::RunArgs;
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use serde_json::{Map, Value, json};

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow hitl list\n  leoflow hitl respond report latest approve_it Approve")]
pub enum HitlCommand {
    /// List the tasks that wait for a response, with their questions and options
    #[command(after_help = "Examples:\n  leoflow hitl list\n  leoflow hitl list report --all")]
    List {
        /// Only tasks of this DAG [default: all DAGs]
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: Option<String>,
        /// Include tasks that were already answered
        #[arg(long)]
        all: bool,
    },
    /// Respond to a task, which then continues
    #[command(after_help = "Examples:\n  leoflow hitl respond report latest approve_it Approve\n  \
                      leoflow hitl respond report RUN_ID 'ask[2]' 'option 1' 'option 3' --param reason='too late'")]
    Respond(HitlRespond),
}

#[derive(Args, Debug)]
pub struct HitlRespond {
    #[command(flatten)]
    pub run: RunArgs,
    /// The task's id; `work[7]` is instance 7 of a mapped task
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// The chosen option, or several where the task allows that
    #[arg(required = true, value_name = "OPTION")]
    pub options: Vec<String>,
    /// A value for one of the task's params, as JSON or text; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
}

pub async fn run(context: &Context<'_>, command: &HitlCommand) -> Result<u8, Error> {
    let api = context.api();
    match command {
        HitlCommand::List { dag_id, all } => list(context, &api, dag_id.as_deref(), *all).await,
        HitlCommand::Respond(args) => respond(context, &api, args).await,
    }
}

async fn list(context: &Context<'_>, api: &Api<'_>, dag_id: Option<&str>, all: bool) -> Result<u8, Error> {
    let path = format!("/api/v2/dags/{}/dagRuns/~/hitlDetails", dag_id.map_or_else(|| "~".to_owned(), encode));
    let filter = if all { "" } else { "&response_received=false&state=awaiting_input&state=deferred" };
    let details = api.all(&path, filter, "hitl_details").await?;
    context.printer.show(&json!({"hitl_details": details}), |printer| {
        if details.is_empty() {
            return printer.note("No task is waiting for a response.");
        }
        let row = |detail: &Value| {
            let task_instance = &detail["task_instance"];
            let answer = match detail["responded_at"].as_str() {
                Some(time) => format!("{} ({})", joined(&detail["chosen_options"]), printer.time(Some(time))),
                None => "-".to_owned(),
            };
            [
                cell(&task_instance["dag_id"]),
                cell(&task_instance["dag_run_id"]),
                task_names::name_of(task_instance),
                cell(&detail["subject"]),
                joined(&detail["options"]),
                answer,
            ]
        };
        printer.table(&["DAG", "RUN", "TASK", "SUBJECT", "OPTIONS", "RESPONSE"], details.iter().map(row));
    })
}

async fn respond(context: &Context<'_>, api: &Api<'_>, args: &HitlRespond) -> Result<u8, Error> {
    let run_path = run_path(&args.run.dag_id, &resolve_run(api, &args.run).await?);
    let (task_id, position) = task_names::instance_name(&args.task_id, None)?;
    let mut params = Map::new();
    for assignment in &args.params {
        let (name, value) = assignment.split_once('=').ok_or_else(|| {
            Error::usage(format!("--param {assignment:?} has no value")).hint("use the form --param name=value")
        })?;
        // A value that is not JSON is text: --param amount=3 --param reason=late
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        params.insert(name.to_owned(), value);
    }
    let path = format!("{run_path}/taskInstances/{}/{}/hitlDetails", encode(task_id), position.stored());
    let body = json!({"chosen_options": args.options, "params_input": params});
    let answered: Value = api.patch(&path, &body).await?;
    context.printer.show(&answered, |printer| {
        printer.line(format!("Responded to {}: {}", args.task_id, args.options.join(", ")));
    })
}
