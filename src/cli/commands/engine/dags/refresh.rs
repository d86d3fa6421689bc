//! Waits until the server has imported the current content of a DAG's file.

use crate::api_client::{Api, encode, joined, texts};
use crate::context::Context;
use crate::error::Error;
use serde_json::{Value, json};

/// Waits for the import; the server limits the wait to 10 s. Warns when the server still has the DAG from before the
/// last change of its file. Fails when no imported file defines the DAG; the hints name files that may.
pub async fn refresh(context: &Context<'_>, api: &Api<'_>, dag_id: &str) -> Result<(), Error> {
    // A server of an older release has no such endpoint; the caller's next request reports every other error.
    let path = format!("/local/dag-refresh?dag_id={}", encode(dag_id));
    let Ok(answer) = api.post::<Value>(&path, &json!({})).await else { return Ok(()) };
    let file = answer["file"].as_str().unwrap_or_default();
    let why = match answer["state"].as_str() {
        Some("unknown") => return Err(unknown_dag_error(dag_id, &answer)),
        Some("importing") if file.is_empty() => {
            return Err(Error::failed(format!("DAG {dag_id:?} was not found"))
                .cause("some files are still being imported")
                .hint("run the same command again in a moment"));
        }
        Some("importing") => "is still being imported".to_owned(),
        Some("building") => "waits for its environment, which is being built (leoflow env list)".to_owned(),
        Some("failed") => "fails to import (leoflow dags list-import-errors)".to_owned(),
        _ => return Ok(()),
    };
    context.printer.warning(format!("{file} {why}; this command uses the DAG as it was before the last change"));
    Ok(())
}

/// The error for a DAG that no file defines.
fn unknown_dag_error(dag_id: &str, answer: &Value) -> Error {
    let mut error = Error::failed(format!("DAG {dag_id:?} was not found"));
    if texts(&answer["building"]).next().is_some() {
        let building = joined(&answer["building"]);
        error = error
            .cause(format!("DAGs of these files appear when their environment is built: {building}"))
            .hint("leoflow env list");
    }
    if answer["failed"].as_u64().is_some_and(|count| count > 0) {
        error = error.hint("files fail to import: leoflow dags list-import-errors");
    }
    error.hint("leoflow dags list")
}
