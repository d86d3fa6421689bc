//! Commands of Airflow that have no other form here. `args::airflow` translates Airflow's words to them.

use super::config;
use super::engine::run_view::resolve_run;
use crate::api_client::{cell, dag_path, run_path};
use crate::args::run_args::{DagArg, RunArgs};
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use leoflow_base::sys::env_vars;
use leoflow_python::airflow_keys;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
pub enum AirflowCommand {
    /// Print the state of a run, and its conf if it has one
    DagState(RunArgs),
    /// Print a DAG with the fields of Airflow's API
    DagDetails(DagArg),
    /// Print a setting of Airflow
    ConfigValue {
        /// The section of airflow.cfg
        section: String,
        /// The key in the section
        option: String,
    },
    /// List the providers of all projects
    Providers,
}

pub async fn run(context: &Context<'_>, command: &AirflowCommand) -> Result<u8, Error> {
    match command {
        AirflowCommand::DagState(run) => dag_state(context, run).await,
        AirflowCommand::DagDetails(DagArg { dag_id }) => {
            let dag: Value = context.api().get(&dag_path(dag_id)).await?;
            context.printer.show(&[&dag], |printer| {
                let row = |(name, value): (&String, &Value)| {
                    [name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]
                };
                printer.table(&["PROPERTY", "VALUE"], dag.as_object().into_iter().flatten().map(row));
            })
        }
        AirflowCommand::ConfigValue { section, option } => config_value(context, section, option),
        AirflowCommand::Providers => {
            let providers = context.api().all("/api/v2/providers", "", "providers").await?;
            context.printer.show(&json!({"providers": providers}), |printer| {
                let row =
                    |provider: &Value| ["package_name", "version", "description"].map(|name| cell(&provider[name]));
                printer.table(&["PROVIDER", "VERSION", "DESCRIPTION"], providers.iter().map(row));
            })
        }
    }
}

async fn dag_state(context: &Context<'_>, run: &RunArgs) -> Result<u8, Error> {
    let api = context.api();
    let run: Value = api.get(&run_path(&run.dag_id, &resolve_run(&api, run).await?)).await?;
    let (state, conf) = (cell(&run["state"]), &run["conf"]);
    context.printer.show(&json!({"state": state, "conf": conf}), |printer| {
        let has_conf = conf.as_object().is_some_and(|conf| !conf.is_empty());
        printer.line(if has_conf { format!("{state}, {conf}") } else { state.clone() });
    })
}

/// Prints our setting, or the variable `AIRFLOW__SECTION__KEY` of this environment.
fn config_value(context: &Context<'_>, section: &str, option: &str) -> Result<u8, Error> {
    match (section, option) {
        ("core", "dags_folder") => return config::get(context, "workspace"),
        ("api", "port") | ("webserver", "web_server_port") => return config::get(context, "port"),
        ("api", "host") => return config::get(context, "host"),
        _ => {}
    }
    let variable = airflow_keys::variable(section, option);
    let unset = || Error::failed(format!("{variable} is not set here")).hint("leoflow docs airflow-settings");
    context.printer.line(env_vars::text(&variable).ok_or_else(unset)?);
    Ok(0)
}
