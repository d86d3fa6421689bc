//! `leoflow dags report` and `list-import-errors`: the results of importing the workspace's DAG files.

use super::list::note_importing;
use crate::api_client::list_of;
use crate::context::Context;
use crate::error::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Prints a row per file, the slowest import first.
pub async fn run(context: &Context<'_>) -> Result<u8, Error> {
    let (response, _) = overview(context).await?;
    // Per file: import time in seconds, number of tasks, DAG ids.
    let mut files: BTreeMap<&str, (f64, u64, Vec<&str>)> = BTreeMap::new();
    for dag in list_of(&response["dags"]) {
        let file = files.entry(dag["relative_fileloc"].as_str().unwrap_or_default()).or_default();
        file.0 = dag["last_parse_duration"].as_f64().unwrap_or_default();
        file.1 += dag["tasks"].as_u64().unwrap_or_default();
        file.2.extend(dag["dag_id"].as_str());
    }
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by(|(_, first), (_, second)| second.0.total_cmp(&first.0));
    let entry = |(file, (seconds, tasks, dags)): &(&str, (f64, u64, Vec<&str>))| json!({"file": file, "duration": seconds, "dag_num": dags.len(), "task_num": tasks, "dags": dags});
    let list: Vec<Value> = files.iter().map(entry).collect();
    context.printer.show(&json!({"files": list}), |printer| {
        let rows = files.iter().map(|(file, (seconds, tasks, dags))| {
            [(*file).to_owned(), format!("{seconds:.2} s"), tasks.to_string(), dags.join(", ")]
        });
        printer.table(&["FILE", "IMPORT TIME", "TASKS", "DAGS"], rows);
    })
}

/// Prints the import errors. The exit code is 1 when there are any.
pub async fn import_errors(context: &Context<'_>) -> Result<u8, Error> {
    let (response, is_complete) = overview(context).await?;
    let errors: Vec<&Value> = list_of(&response["import_errors"]).collect();
    let list: Vec<Value> =
        errors.iter().map(|error| json!({"filepath": error["filename"], "error": error["stack_trace"]})).collect();
    context.printer.show(&json!({"import_errors": list}), |printer| {
        let workspace = context.workspace()?.unwrap_or_default();
        for error in &errors {
            let file = Path::new(error["filename"].as_str().unwrap_or_default());
            printer.line(file.strip_prefix(&workspace).unwrap_or(file).display().to_string());
            for line in error["stack_trace"].as_str().unwrap_or_default().lines() {
                printer.line(format!("  {line}"));
            }
        }
        if errors.is_empty() && is_complete {
            printer.line("No import errors");
        }
        Ok(())
    })?;
    Ok(u8::from(!errors.is_empty()))
}

/// Reads the server's list of DAGs. Returns whether it is complete; if not, says so.
async fn overview(context: &Context<'_>) -> Result<(Value, bool), Error> {
    let response: Value = context.api().get("/api/lite/dags").await?;
    let importing = response["importing"].as_u64();
    note_importing(context.printer, importing);
    Ok((response, importing == Some(0)))
}
