//! `leoflow xcom …`.

use super::run_view::{self, RunView, resolve_run};
use super::task_names;
use crate::api_client::{encode, run_path};
use crate::args::complete;
use crate::args::run_args::RunArgs;
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use leoflow_base::sys::shell;
use serde_json::{Value, json};

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

/// Path of the XComs of a task, or of all tasks with `~`.
fn entries_path(dag_id: &str, run_id: &str, task_id: &str) -> String {
    format!("{}/taskInstances/{}/xcomEntries", run_path(dag_id, run_id), encode(task_id))
}

async fn list(context: &Context<'_>, run: &RunArgs, task_id: Option<&str>) -> Result<u8, Error> {
    let (api, dag_id) = (context.api(), &run.dag_id);
    let run_id = resolve_run(&api, run).await?;
    let (task, position) = task_id.map_or(("~", None), task_names::split);
    let index_filter = position.map(|position| format!("&map_index={}", position.stored())).unwrap_or_default();
    let entries = api.all(&entries_path(dag_id, &run_id, task), &index_filter, "xcom_entries").await?;
    let shape =
        |entry: &Value| json!({"task_id": entry["task_id"], "map_index": entry["map_index"], "key": entry["key"]});
    let list: Vec<Value> = entries.iter().map(shape).collect();
    context.printer.show(&json!({"xcom_entries": list}), |printer| {
        if entries.is_empty() {
            return printer.line(format!("No XComs in {dag_id} {run_id}"));
        }
        let row = |entry: &Value| {
            let key = entry["key"].as_str().unwrap_or_default().to_owned();
            [task_names::name_of(entry), key, printer.time(entry["timestamp"].as_str())]
        };
        printer.table(&["TASK", "KEY", "WRITTEN"], entries.iter().map(row));
    })
}

/// Prints the bare value, with and without --json.
async fn get(
    context: &Context<'_>,
    run: &RunArgs,
    (task_name, map_index): (&str, Option<i32>),
    key: &str,
) -> Result<u8, Error> {
    let (api, dag_id) = (context.api(), &run.dag_id);
    let run_id = resolve_run(&api, run).await?;
    let (task_id, position) = task_names::instance_name(task_name, map_index)?;
    let path = format!("{}/{}?map_index={}", entries_path(dag_id, &run_id, task_id), encode(key), position.stored());
    let entry: Value = match api.get(&path).await {
        Ok(entry) => entry,
        Err(error) if error.is_transient => return Err(error),
        Err(error) => {
            // A misspelt run or task has a clearer error of its own.
            let run = RunView::get(&api, dag_id, &run_id).await?;
            run_view::instance(&run, &format!("{task_id}{position}"), None)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hint_explains_a_missing_xcom() {
        let error = missing(Error::failed("no XCom").hint("leoflow runs list d"), "d", "latest");
        assert_eq!(error.hints, ["a task that returns None pushes no XCom", "leoflow xcom list d latest"]);
    }
}
