//! Commands of Airflow that have no other form here. `args::airflow` translates Airflow's words to them.

use super::config;
use super::engine::run_view::resolve_run;
use super::engine::task_names;
use crate::api_client::{cell, encode, list_of, run_path};
use crate::args::run_args::RunArgs;
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use leoflow_base::sys::env_vars;
use leoflow_python::airflow_keys;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  leoflow dags state hello latest")]
pub enum AirflowCommand {
    /// Print the state of a run, and its conf if it has one
    #[command(after_help = "Example:\n  leoflow dags state hello 2026-01-31")]
    DagState(RunArgs),
    /// Print the unmet dependencies of a task instance
    #[command(after_help = "Example:\n  leoflow tasks failed-deps hello greet latest")]
    FailedDeps {
        /// The DAG's id
        dag_id: String,
        /// The task's id; `work[7]` is instance 7 of a mapped task
        task_id: String,
        /// The run's id, its logical date, or `latest`
        run_id: String,
    },
    /// Print a setting of Airflow
    #[command(after_help = "Example:\n  leoflow config get-value core dags_folder")]
    ConfigValue {
        /// The section of airflow.cfg
        section: String,
        /// The key in the section
        option: String,
    },
    /// List the providers of all projects
    #[command(after_help = "Example:\n  leoflow providers list")]
    Providers,
}

pub async fn run(context: &Context<'_>, command: &AirflowCommand) -> Result<u8, Error> {
    match command {
        AirflowCommand::DagState(run) => dag_state(context, run).await,
        AirflowCommand::FailedDeps { dag_id, task_id, run_id } => {
            let run = RunArgs { dag_id: dag_id.clone(), run_id: run_id.clone() };
            failed_dependencies(context, &run, task_id).await
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

async fn failed_dependencies(context: &Context<'_>, run: &RunArgs, name: &str) -> Result<u8, Error> {
    let api = context.api();
    let run_id = resolve_run(&api, run).await?;
    let (task_id, map_index) = task_names::split(name);
    let task = map_index.map_or(encode(task_id), |index| format!("{}/{index}", encode(task_id)));
    let path = format!("{}/taskInstances/{task}/dependencies", run_path(&run.dag_id, &run_id));
    let unmet: Value = api.get(&path).await?;
    context.printer.show(&unmet, |printer| {
        let row = |dependency: &Value| [cell(&dependency["name"]), cell(&dependency["reason"])];
        let rows: Vec<_> = list_of(&unmet["dependencies"]).map(row).collect();
        match rows.is_empty() {
            true => printer.line("Task instance dependencies are all met."),
            false => printer.table(&["DEPENDENCY", "REASON"], rows),
        }
    })
}

/// Airflow's keys that have a setting of ours.
const OURS: &[(&str, &str, &str)] = &[
    ("core", "dags_folder", "workspace"),
    ("api", "port", "port"),
    ("api", "host", "host"),
    ("webserver", "web_server_port", "port"),
];

/// Prints our setting, else the variable `AIRFLOW__SECTION__KEY` of this environment, else Airflow's default.
fn config_value(context: &Context<'_>, section: &str, option: &str) -> Result<u8, Error> {
    let (section, option) = (section.to_lowercase(), option.to_lowercase());
    if let Some((.., key)) = OURS.iter().find(|(of, name, _)| *of == section && *name == option) {
        return config::get(context, key);
    }
    let value = env_vars::text(&airflow_keys::variable(&section, &option));
    let value = value.or_else(|| airflow_keys::default_of(&section, &option).map(str::to_owned));
    let value = value.ok_or_else(|| {
        Error::failed(format!(
            "the setting {section}.{option} of Airflow is not set, and Leoflow knows no default of it"
        ))
        .hint("leoflow docs airflow-settings")
    })?;
    context.printer.line(value);
    Ok(0)
}
