//! `leoflow dags plan`, the scheduler's planner for a run in another process: `DAG.test()` of the Python package runs the
//! tasks in the process that calls it, so that breakpoints in them hold.

use crate::commands::engine::foreground_planner::answer_all;
use crate::commands::engine::project_folder::file_request;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::DEFAULT_MAX_MAP_LENGTH;
use leoflow_base::sys::env_vars;
use leoflow_engine::model::dag::Structure;
use leoflow_engine::model::params;
use leoflow_engine::planner::graph::Graph;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::{BufRead, Write};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Plan {
    /// The DAG file
    pub file: PathBuf,
}

/// The run that the other process tests.
#[derive(Deserialize)]
struct TestedRun {
    structure: Structure,
    /// The values of its params.
    conf: Map<String, Value>,
}

/// Writes the settings of the file as a line of JSON. Reads a [`TestedRun`] as a line, then answers each line, a question
/// of the planner, until standard input ends with the process that runs the tasks.
pub fn run(context: &Context<'_>, args: &Plan) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let max_map_length = config.as_ref().map_or(DEFAULT_MAX_MAP_LENGTH, |config| config.max_map_length);
    let workspace = config.and_then(|config| config.workspace);
    let (request, file_settings) = file_request(context, workspace.as_deref(), &env_vars::absolute(&args.file)?)?;
    let broken = |error: std::io::Error| Error::failed("the process that runs the tasks has ended").cause(error);
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let settings =
        json!({"settings": file_settings.settings, "roots": request.roots, "max_map_length": max_map_length});
    writeln!(output, "{settings}").and_then(|()| output.flush()).map_err(broken)?;
    let mut line = String::new();
    input.read_line(&mut line).map_err(broken)?;
    let TestedRun { structure, conf } = serde_json::from_str(&line).map_err(Error::failed)?;
    if let Err(error) = params::check(&structure, &conf) {
        writeln!(output, "{}", json!({"error": error.to_string()})).and_then(|()| output.flush()).map_err(broken)?;
        return Ok(1);
    }
    answer_all(&Graph::new(structure), input, output).map_err(broken)?;
    Ok(0)
}
