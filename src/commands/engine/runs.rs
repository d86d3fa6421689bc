//! `leoflow runs …`.

use super::dags::finish;
use super::run_view::{self, RunView, resolve_run};
use super::task_names;
use crate::cli::api::{Api, encode, list_of};
use crate::cli::engine_args::RunsCommand;
use crate::commands::context::Context;
use crate::error::Error;
use serde_json::{Value, json};

pub async fn run(context: &Context<'_>, command: &RunsCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    match command {
        RunsCommand::List { dag_id, state, limit } => list(context, dag_id, state.as_deref(), *limit).await,
        RunsCommand::Show { dag_id, run_id } => {
            let run_id = resolve_run(&api, dag_id, run_id).await?;
            let run = RunView::get(&api, dag_id, &run_id).await?;
            if context.printer.json {
                context.printer.json(&run.json())?;
            } else {
                run.print(context);
            }
            Ok(0)
        }
        RunsCommand::Watch { dag_id, run_id } => {
            let run_id = resolve_run(&api, dag_id, run_id).await?;
            let run = run_view::follow(context, dag_id, &run_id).await?;
            finish(context, &run)
        }
        RunsCommand::Clear { dag_id, run_id, only_failed, yes } => {
            let run_id = resolve_run(&api, dag_id, run_id).await?;
            clear(context, dag_id, &run_id, *only_failed, *yes).await
        }
        RunsCommand::Delete { dag_id, run_id, yes } => {
            let run_id = resolve_run(&api, dag_id, run_id).await?;
            delete(context, dag_id, &run_id, *yes).await
        }
        RunsCommand::Cancel { dag_id, run_id } => {
            let run_id = resolve_run(&api, dag_id, run_id).await?;
            cancel(context, dag_id, &run_id).await
        }
    }
}

fn path(dag_id: &str, run_id: &str) -> String {
    format!("/api/v2/dags/{}/dagRuns/{}", encode(dag_id), encode(run_id))
}

async fn list(context: &Context<'_>, dag_id: &str, state: Option<&str>, limit: u32) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let state = state.map(|state| format!("&state={}", encode(state))).unwrap_or_default();
    let (mut found, mut total): (Vec<Value>, u64) = (Vec::new(), 0);
    loop {
        let (room, offset) = (limit as usize - found.len(), found.len());
        let query = format!("limit={room}&offset={offset}&order_by=-run_after{state}");
        let page: Value = api.get(&format!("/api/v2/dags/{}/dagRuns?{query}", encode(dag_id))).await?;
        found.extend(list_of(&page["dag_runs"]).cloned());
        total = page["total_entries"].as_u64().unwrap_or(total);
        if found.len() == offset || found.len() as u64 >= total.min(limit.into()) {
            break;
        }
    }
    if context.printer.json {
        context.printer.json(&json!({"dag_runs": found, "total_entries": total}))?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|run| {
            let word = |name: &str| run[name].as_str().unwrap_or("-").to_owned();
            let time = |name: &str| context.printer.time(run[name].as_str());
            vec![word("dag_run_id"), word("state"), word("run_type"), time("start_date"), time("end_date")]
        })
        .collect();
    if rows.is_empty() {
        context.printer.line(format!("{dag_id} has no such runs"));
        return Ok(0);
    }
    context.printer.table(&["RUN", "STATE", "TYPE", "STARTED", "ENDED"], &rows);
    if total > rows.len() as u64 {
        context.printer.note(format!("{} of {total}; --limit shows more", rows.len()));
    }
    Ok(0)
}

async fn clear(context: &Context<'_>, dag_id: &str, run_id: &str, only_failed: bool, yes: bool) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let path = format!("{}/clear", path(dag_id, run_id));
    let plan: Value = api.post(&path, &json!({"dry_run": true, "only_failed": only_failed})).await?;
    if !confirm_clear(context, (dag_id, run_id), &plan, yes)? {
        return Ok(1);
    }
    let run: Value = api.post(&path, &json!({"dry_run": false, "only_failed": only_failed})).await?;
    say_cleared(context, dag_id, run_id, &plan, &run["state"])
}

/// Shows what would run again, and asks. `false` when nothing is to be done.
pub fn confirm_clear(
    context: &Context<'_>,
    (dag_id, run_id): (&str, &str),
    plan: &Value,
    yes: bool,
) -> Result<bool, Error> {
    let name = |one: &Value| {
        let index = one["map_index"].as_i64().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1);
        Some(task_names::printed(one["task_id"].as_str()?, index))
    };
    let ids: Vec<String> = list_of(&plan["task_instances"]).filter_map(name).collect();
    if ids.is_empty() {
        return Err(
            Error::failed("there are no such tasks to run again").hint(format!("leoflow runs show {dag_id} {run_id}"))
        );
    }
    let shown: Vec<&str> = ids.iter().take(20).map(String::as_str).collect();
    let more = if ids.len() > shown.len() { format!(" and {} more", ids.len() - shown.len()) } else { String::new() };
    let answer = context.confirm(&format!("Run again: {}{more}?", shown.join(", ")), yes)?;
    if !answer {
        context.printer.line("nothing was changed");
    }
    Ok(answer)
}

pub fn say_cleared(
    context: &Context<'_>,
    dag_id: &str,
    run_id: &str,
    plan: &Value,
    state: &Value,
) -> Result<u8, Error> {
    let count = list_of(&plan["task_instances"]).count();
    if context.printer.json {
        let shape = json!({"dag_id": dag_id, "dag_run_id": run_id, "state": state, "cleared": count});
        context.printer.json(&shape)?;
    } else {
        context.printer.line(format!("{count} task(s) of {dag_id} {run_id} run again"));
    }
    Ok(0)
}

async fn delete(context: &Context<'_>, dag_id: &str, run_id: &str, yes: bool) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let run = RunView::get(&api, dag_id, run_id).await?;
    if !run.is_finished() {
        return Err(Error::failed(format!("the run has not ended: it is {}", run.state))
            .hint(format!("leoflow runs cancel {dag_id} {run_id}")));
    }
    let question = format!("Remove {run_id} of {dag_id} with its {} tasks and their XComs?", run.task_instances.len());
    if !context.confirm(&question, yes)? {
        context.printer.line("nothing was changed");
        return Ok(1);
    }
    api.delete(&path(dag_id, run_id)).await?;
    if context.printer.json {
        context.printer.json(&json!({"dag_id": dag_id, "dag_run_id": run_id, "deleted": true}))?;
    } else {
        context.printer.line(format!("{dag_id}  {run_id}  deleted"));
    }
    Ok(0)
}

async fn cancel(context: &Context<'_>, dag_id: &str, run_id: &str) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let run = RunView::get(&api, dag_id, run_id).await?;
    if run.is_finished() {
        return Err(Error::failed(format!("the run has ended already: {}", run.state))
            .hint(format!("leoflow runs show {dag_id} {run_id}")));
    }
    let run: Value = api.patch(&path(dag_id, run_id), &json!({"state": "failed"})).await?;
    if context.printer.json {
        context.printer.json(&json!({"dag_id": dag_id, "dag_run_id": run_id, "state": run["state"]}))?;
    } else {
        context.printer.line(format!("{dag_id}  {run_id}  cancelled"));
    }
    Ok(0)
}
