//! `leoflow hitl …`: what tasks ask people.

use super::run_view::resolve_run;
use super::task_names;
use crate::cli::api::{Api, encode, list_of};
use crate::cli::args::{HitlCommand, HitlRespond};
use crate::commands::context::Context;
use crate::error::Error;
use serde_json::{Map, Value, json};

pub async fn run(context: &Context<'_>, command: &HitlCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    match command {
        HitlCommand::List { dag_id, all } => list(context, &api, dag_id.as_deref(), *all).await?,
        HitlCommand::Respond(args) => respond(context, &api, args).await?,
    }
    Ok(0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn texts(values: &Value) -> String {
    list_of(values).filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

async fn list(context: &Context<'_>, api: &Api<'_>, dag_id: Option<&str>, all: bool) -> Result<(), Error> {
    let printer = context.printer;
    let path = format!("/api/v2/dags/{}/dagRuns/~/hitlDetails", dag_id.map_or_else(|| "~".to_owned(), encode));
    let filter = if all { "" } else { "&response_received=false&state=awaiting_input&state=deferred" };
    let found = api.all(&path, filter, "hitl_details").await?;
    if printer.json {
        return printer.json(&json!({"hitl_details": found}));
    }
    if found.is_empty() {
        printer.note("no task waits for an answer");
        return Ok(());
    }
    let row = |one: &Value| {
        let of = &one["task_instance"];
        let map_index = of["map_index"].as_i64().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1);
        let answer = match one["responded_at"].as_str() {
            Some(at) => format!("{} ({})", texts(&one["chosen_options"]), printer.time(Some(at))),
            None => "-".to_owned(),
        };
        vec![
            text(&of["dag_id"]),
            text(&of["dag_run_id"]),
            task_names::printed(of["task_id"].as_str().unwrap_or_default(), map_index),
            text(&one["subject"]),
            texts(&one["options"]),
            answer,
        ]
    };
    let header = ["DAG", "RUN", "TASK", "SUBJECT", "OPTIONS", "ANSWER"];
    printer.table(&header, &found.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

async fn respond(context: &Context<'_>, api: &Api<'_>, args: &HitlRespond) -> Result<(), Error> {
    let run_id = resolve_run(api, &args.dag_id, &args.run_id).await?;
    let (task_id, map_index) = task_names::one_of(&args.task_id, None)?;
    let mut params = Map::new();
    for given in &args.params {
        let (name, value) = given.split_once('=').ok_or_else(|| {
            Error::usage(format!("--param {given:?} has no value")).hint("write it as --param name=value")
        })?;
        // JSON where it is, text where it is not: --param amount=3 --param reason=late
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        params.insert(name.to_owned(), value);
    }
    let path = format!(
        "/api/v2/dags/{}/dagRuns/{}/taskInstances/{}/{map_index}/hitlDetails",
        encode(&args.dag_id),
        encode(&run_id),
        encode(task_id)
    );
    let body = json!({"chosen_options": args.options, "params_input": params});
    let answered: Value = api.patch(&path, &body).await?;
    if context.printer.json {
        return context.printer.json(&answered);
    }
    context.printer.line(format!("{} is answered: {}", args.task_id, args.options.join(", ")));
    Ok(())
}
