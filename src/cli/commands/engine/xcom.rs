//! `leoflow xcom …`.

use super::run_view::{self, RunView, resolve_run};
use super::task_names;
use crate::api_client::{Api, encode, list_of};
use crate::args::complete;
use crate::args::output::Output;
use crate::args::run_args::RunArgs;
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use leoflow_base::sys::shell;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct Xcom {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: XcomCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow xcom list hello latest\n  leoflow xcom get hello latest greet")]
pub enum XcomCommand {
    /// List the XComs of a run
    #[command(after_help = "Example:\n  leoflow xcom list hello latest")]
    List {
        #[command(flatten)]
        run: RunArgs,
        /// Only XComs of this task [default: all tasks]
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: Option<String>,
    },
    /// Print one XCom's value as JSON
    #[command(
        after_help = "Examples:\n  leoflow xcom get hello latest greet\n  leoflow xcom get hello RUN_ID load --key rows"
    )]
    Get {
        #[command(flatten)]
        run: RunArgs,
        /// The task's id
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: String,
        /// The XCom's key
        #[arg(long, default_value = "return_value")]
        key: String,
        /// The instance of a mapped task, counted from 0; `work[7]` as the task's id means the same
        #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
        map_index: Option<i32>,
    },
}

pub async fn run(context: &Context<'_>, command: &XcomCommand) -> Result<u8, Error> {
    match command {
        XcomCommand::List { run, task_id } => list(context, run, task_id.as_deref()).await,
        XcomCommand::Get { run, task_id, key, map_index } => get(context, run, (task_id, *map_index), key).await,
    }
}

async fn list(context: &Context<'_>, run: &RunArgs, task_id: Option<&str>) -> Result<u8, Error> {
    let (api, dag_id) = (Api::new(&context.home), &run.dag_id);
    let run_id = resolve_run(&api, dag_id, &run.run_id).await?;
    let (task, map_index) = task_id.map_or(("~", None), task_names::split);
    let index_filter = map_index.map(|map_index| format!("&map_index={map_index}")).unwrap_or_default();
    let path = format!(
        "/api/v2/dags/{}/dagRuns/{}/taskInstances/{}/xcomEntries",
        encode(dag_id),
        encode(&run_id),
        encode(task)
    );
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let offset = entries.len();
        let page: Value = api.get(&format!("{path}?limit=100&offset={offset}{index_filter}")).await?;
        entries.extend(list_of(&page["xcom_entries"]).cloned());
        let total = page["total_entries"].as_u64().unwrap_or(0);
        if entries.len() as u64 >= total || entries.len() == offset {
            break;
        }
    }
    print_list(context, dag_id, &run_id, &entries)
}

/// Prints the bare value, with and without --json.
async fn get(
    context: &Context<'_>,
    run: &RunArgs,
    (task_name, map_index): (&str, Option<i32>),
    key: &str,
) -> Result<u8, Error> {
    let (api, dag_id) = (Api::new(&context.home), &run.dag_id);
    let run_id = resolve_run(&api, dag_id, &run.run_id).await?;
    let (task_id, map_index) = task_names::instance_name(task_name, map_index)?;
    let path = format!(
        "/api/v2/dags/{}/dagRuns/{}/taskInstances/{}/xcomEntries/{}?map_index={map_index}",
        encode(dag_id),
        encode(&run_id),
        encode(task_id),
        encode(key)
    );
    let entry: Value = match api.get(&path).await {
        Ok(entry) => entry,
        Err(error) if error.is_transient => return Err(error),
        Err(error) => {
            // A misspelt run or task has a clearer error of its own.
            let run = RunView::get(&api, dag_id, &run_id).await?;
            run_view::instance(&run, task_id, (map_index >= 0).then_some(map_index))?;
            return Err(missing(error, dag_id, &run_id));
        }
    };
    context.printer.json(&entry["value"])?;
    Ok(0)
}

/// The error for an XCom that does not exist, with the most likely reason first.
fn missing(error: Error, dag_id: &str, run_id: &str) -> Error {
    let list = format!("leoflow xcom list {} {}", shell::word(dag_id), shell::word(run_id));
    Error { hints: vec!["a task that returns None pushes no XCom".to_owned(), list], ..error }
}

fn print_list(context: &Context<'_>, dag_id: &str, run_id: &str, entries: &[Value]) -> Result<u8, Error> {
    let entry_json = |xcom_entry: &Value| json!({"task_id": xcom_entry["task_id"], "map_index": xcom_entry["map_index"], "key": xcom_entry["key"]});
    if context.printer.json {
        let entries: Vec<Value> = entries.iter().map(entry_json).collect();
        context.printer.json(&json!({"xcom_entries": entries}))?;
    } else if entries.is_empty() {
        context.printer.line(format!("No XComs in {dag_id} {run_id}"));
    } else {
        let field = |xcom_entry: &Value, name: &str| xcom_entry[name].as_str().unwrap_or_default().to_owned();
        let index = |xcom_entry: &Value| {
            xcom_entry["map_index"].as_i64().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1)
        };
        let row = |xcom_entry: &Value| {
            let name = task_names::display_name(&field(xcom_entry, "task_id"), index(xcom_entry));
            vec![name, field(xcom_entry, "key"), context.printer.time(xcom_entry["timestamp"].as_str())]
        };
        let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
        context.printer.table(&["TASK", "KEY", "WRITTEN"], &rows);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hint_explains_a_missing_xcom() {
        let error = missing(Error::failed("no XCom").hint("leoflow runs list d"), "d", "latest");
        assert_eq!(error.hints, ["a task that returns None pushes no XCom", "leoflow xcom list d latest"]);
    }
}
