//! `leoflow dags trigger`.

use super::refresh::refresh;
use crate::api_client::dag_path;
use crate::args::complete;
use crate::commands::engine::follow_run;
use crate::commands::engine::run_inputs::{read_conf, read_date};
use crate::commands::engine::run_view::{RunView, colour};
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct Trigger {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// Params of the run, as a JSON object; - reads it from stdin [default: those of the DAG]
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The run's id [default: manual__ and the current time]
    #[arg(long, short)]
    pub run_id: Option<String>,
    /// The logical date, for example 2026-01-31 [default: none]
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// The partition key of the run, for a partitioned DAG
    #[arg(long, value_name = "KEY")]
    pub partition_key: Option<String>,
    /// Wait until the run ends and print each task's state changes; exits 1 when the run fails
    #[arg(long, short)]
    pub wait: bool,
    /// Unpause the DAG first
    #[arg(long)]
    pub unpause: bool,
}

/// Creates a run and, with `--wait`, follows it.
pub async fn run(context: &Context<'_>, args: &Trigger) -> Result<u8, Error> {
    let api = context.api();
    let dag_id = &args.dag_id;
    let path = dag_path(dag_id);
    let conf = read_conf(args.conf.as_deref())?;
    let logical_date = args.logical_date.as_deref().map(|text| read_date("--logical-date", text)).transpose()?;
    refresh(context, &api, dag_id).await?;
    let dag: Value = api.get(&path).await?;
    let is_paused = dag["is_paused"].as_bool().unwrap_or(false);
    if args.unpause && is_paused {
        let _: Value = api.patch(&path, &json!({"is_paused": false})).await?;
    } else if is_paused && args.wait {
        return Err(Error::failed(format!("{dag_id} is paused, so its runs do not start"))
            .hint(format!("leoflow dags trigger {dag_id} --wait --unpause")));
    }
    let mut body =
        json!({"dag_run_id": args.run_id, "logical_date": logical_date.map(|date| date.to_string()), "conf": conf});
    if let Some(key) = &args.partition_key {
        body["partition_key"] = key.as_str().into();
    }
    let run: Value = api.post(&format!("{path}/dagRuns"), &body).await?;
    let run_id = run["dag_run_id"].as_str().unwrap_or_default();
    if !args.wait {
        let shape = json!({"dag_id": dag_id, "dag_run_id": run_id, "state": run["state"]});
        return context.printer.show(&shape, |printer| {
            printer.line(format!("{dag_id}  {run_id}  queued"));
            if is_paused && !args.unpause {
                printer.warning(format!("{dag_id} is paused; the run starts after `leoflow dags unpause {dag_id}`"));
            }
        });
    }
    context.printer.part(|printer| printer.note(format!("{dag_id}  {run_id}")));
    let run = follow_run::follow(context, dag_id, run_id).await?;
    finish(context, &run)
}

/// Prints the final state of a run; fails when the run failed.
pub fn finish(context: &Context<'_>, run: &RunView) -> Result<u8, Error> {
    let shape = json!({"dag_id": run.dag_id, "dag_run_id": run.dag_run_id, "state": run.state});
    context.printer.show(&shape, |printer| {
        let state = printer.paint(colour(&run.state), &run.state);
        printer.line(format!("{}  {}  {state}", run.dag_id, run.dag_run_id));
    })?;
    if run.state == "failed" { Err(run.failure()) } else { Ok(0) }
}
