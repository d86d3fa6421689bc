//! `leoflow export airflow`.

use super::dag_folder::Direction;
use super::data_files::{connections, pools, variables};
use super::deployment::{self, Pool, TemplateContext};
use super::findings::{Finding, Findings};
use super::{airflow_version, dag_folder, history, requirements, secrets};
use crate::api_client::{Api, joined, list_of, texts};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::{Args, Subcommand};
use leoflow_base::config::{Config, Recipient};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{env_vars, shell};
use leoflow_engine::model::dag::DEFAULT_POOL;
use leoflow_engine::store::secret::connections::Connection;
use leoflow_engine::store::secret::variables::Variable;
use leoflow_lifecycle::operation::open::Datastore;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  leoflow export airflow --output ~/to-airflow")]
pub enum Export {
    /// Export everything that Apache Airflow needs to run these DAGs
    #[command(after_help = "Examples:\n  leoflow export airflow --output ~/to-airflow\n  \
                      leoflow export airflow --output ~/to-airflow --recipient age1… --history\n\n\
                      Without a recipient, possible secrets are left out for you to fill in.\n\
                      README.md in the export lists the next steps and what Airflow does not support.")]
    Airflow(ExportAirflow),
}

#[derive(Args, Debug)]
pub struct ExportAirflow {
    /// The folder to create; it must not exist yet
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Encrypt variables, connections and history to this public key of age; may be repeated
    /// [default: backup.recipients]
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Encrypt nothing and leave out possible secrets, even when backup.recipients is set
    #[arg(long, conflicts_with = "recipient")]
    pub no_secrets: bool,
    /// Also export finished runs and task instances
    #[arg(long)]
    pub history: bool,
}

/// Slots of `default_pool` in a new Airflow database.
const AIRFLOW_DEFAULT_POOL_SLOTS: i64 = 128;

pub async fn airflow(context: &Context<'_>, args: &ExportAirflow) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let config = config.ok_or_else(Error::not_set_up)?;
    let workspace =
        config.workspace.clone().ok_or_else(|| Error::failed("no workspace is configured").hint("leoflow setup"))?;
    let recipients = recipients(args, &config)?;
    if recipients.is_empty() && config.backup.passphrase.is_some() && !args.no_secrets {
        context.printer.note("backup.passphrase does not apply to exports; encrypt this one with --recipient KEY");
    }
    let output = env_vars::absolute(&args.output)?;
    check_output(&output, &workspace)?;
    let content = InstanceContent::read(&context.api()).await?;
    let mut findings = Findings::default();
    content.add_findings(&mut findings);

    // Write to a temporary neighbour and rename it, so that the export is complete or absent.
    let staging = files::temporary_neighbour(&output);
    let export =
        Exported { context, config: &config, workspace: &workspace, recipients: &recipients, content: &content };
    let outcome = export.write(&staging, args.history, &mut findings).await;
    let moved = outcome.and_then(|report| {
        files::rename_to_new(&staging, &output).map_err(Error::cannot("create", &output))?;
        Ok(report)
    });
    let report = moved.inspect_err(|_| drop(files::remove_any(&staging)))?;
    // `.env` has new passwords.
    context.printer.warn_if_readable_by_others(&output.join(".env"));
    context.printer.show(&json!({"output": output, "export": report}), |printer| {
        print_report(printer, &output, &content, &report, &findings);
    })
}

/// Prints the exported content, the content that was left out, and the features that Airflow does not support.
fn print_report(printer: &Printer, output: &Path, content: &InstanceContent, report: &Value, findings: &Findings) {
    printer.line(format!("Exported for Apache Airflow {} to {}", airflow_version(), output.display()));
    printer.line(format!(
        "  {}, {}, {}, {}",
        counted(content.dags.len(), "DAG"),
        counted(content.variables.len(), "variable"),
        counted(content.connections.len(), "connection"),
        counted(content.pools.len(), "pool")
    ));
    if let Some(history) = report["history"].as_object() {
        let instances = counted(&history["task_instances"], "task instance");
        printer.line(format!("  {} with {instances}", counted(&history["runs"], "run")));
    }
    // `to_fill` in `export.json` lists the values that the export omits and the user must fill in.
    for name in texts(&report["to_fill"]) {
        printer.warning(format!("not exported, because it may be secret and there is no --recipient: {name}"));
    }
    for Finding { what, why, remedy } in findings.all() {
        printer.warning(format!("{what}: {why}; {remedy}"));
    }
    printer.line(format!("Next steps: {}", output.join("README.md").display()));
}

/// Returns the recipients on the command line, else the configured ones; none with `--no-secrets`.
fn recipients(args: &ExportAirflow, config: &Config) -> Result<Vec<Recipient>, Error> {
    if args.no_secrets {
        return Ok(Vec::new());
    }
    if args.recipient.is_empty() {
        return Ok(config.backup.recipients.clone());
    }
    let read = |text: &String| {
        Recipient::parse(text).ok_or_else(|| {
            Error::usage(format!("{text:?} is not a public key"))
                .hint("a key is age1…; create one with `age-keygen` (SSH keys are not supported)")
        })
    };
    args.recipient.iter().map(read).collect()
}

/// Refuses an output folder that exists, is in the workspace, or has no parent folder.
fn check_output(output: &Path, workspace: &Path) -> Result<(), Error> {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let parent = output.parent().unwrap_or(output);
    if canonical(parent).starts_with(canonical(workspace)) {
        return Err(Error::usage(
            "the export cannot be in the workspace, where its DAG files would be imported as DAGs",
        )
        .hint("choose a folder outside the workspace"));
    }
    if !parent.is_dir() {
        return Err(Error::usage(format!("the folder {} does not exist", parent.display()))
            .hint(format!("mkdir -p {}", parent.display())));
    }
    match fs::symlink_metadata(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("read", output, &error)),
        Ok(_) => {
            Err(Error::refused(format!("{} already exists", output.display()))
                .hint("choose another name, or move it away"))
        }
    }
}

/// The instance's content, read from the server.
struct InstanceContent {
    dags: Vec<Value>,
    import_errors: Vec<Value>,
    /// The response of `/local/environments`: `environments` are the installed ones, and `wanted` are those that DAG
    /// files require, each with a `state`.
    environments: Value,
    variables: Vec<Variable>,
    connections: Vec<Connection>,
    pools: Vec<Value>,
}

impl InstanceContent {
    async fn read(api: &Api<'_>) -> Result<Self, Error> {
        Ok(Self {
            dags: api.all("/api/v2/dags", "&order_by=dag_id", "dags").await?,
            import_errors: api.all("/api/v2/importErrors", "", "import_errors").await?,
            environments: api.get("/local/environments").await?,
            variables: api.with_bulk_timeout().get(variables::LOCAL).await?,
            connections: api.with_bulk_timeout().get(connections::LOCAL).await?,
            pools: api.all(pools::POOLS, "", "pools").await?,
        })
    }

    fn add_findings(&self, findings: &mut Findings) {
        let default_slots =
            self.pools.iter().find(|pool| pool["name"] == DEFAULT_POOL).and_then(|pool| pool["slots"].as_i64());
        if let Some(slots) = default_slots.filter(|slots| *slots != AIRFLOW_DEFAULT_POOL_SLOTS) {
            findings.add(
                format!("pool {DEFAULT_POOL}"),
                format!("it has {slots} slots here, but {AIRFLOW_DEFAULT_POOL_SLOTS} in a new Airflow"),
                format!("airflow pools set {DEFAULT_POOL} {slots} ''"),
            );
        }
        for error in &self.import_errors {
            let file = error["filename"].as_str().unwrap_or_default();
            findings.add(file, "it has an import error here", "fix it first: leoflow validate");
        }
        for environment in list_of(&self.environments["wanted"]).filter(|environment| environment["state"] != "ready") {
            findings.add(
                joined(&environment["files"]),
                "its environment is not installed, so its package versions are unknown",
                "see leoflow env list",
            );
        }
    }

    /// Python version of the first installed environment that a DAG uses.
    fn python(&self) -> Option<&str> {
        list_of(&self.environments["environments"])
            .filter(|environment| list_of(&environment["dags"]).count() > 0)
            .find_map(|environment| environment["python"].as_str())
    }
}

struct Exported<'a> {
    context: &'a Context<'a>,
    config: &'a Config,
    workspace: &'a Path,
    recipients: &'a [Recipient],
    content: &'a InstanceContent,
}

impl Exported<'_> {
    /// Writes the export into a new folder. Returns the content of `export.json`.
    async fn write(&self, folder: &Path, with_history: bool, findings: &mut Findings) -> Result<Value, Error> {
        files::create_dir_where_supported(folder).map_err(Error::cannot("create", folder))?;
        let copied = dag_folder::copy(self.workspace, Some(&folder.join("dags")), Direction::ToAirflow, findings)?;
        let pins = requirements::lines(&self.content.environments, findings);
        let path = folder.join("requirements.txt");
        let text: String = pins.iter().map(|pin| format!("{pin}\n")).collect();
        files::write_atomic(&path, text.as_bytes(), 0o644).map_err(Error::cannot("write", &path))?;
        let (suffix, omitted_values) = self.write_data_files(folder)?;
        let history_counts = match with_history {
            true => Some(self.write_history(folder, suffix, findings).await?),
            false => None,
        };
        let content = self.content;
        let active = content.dags.iter().filter(|dag| dag["is_paused"] == false);
        let template_context = TemplateContext {
            airflow: airflow_version(),
            leoflow: self.context.version,
            date: jiff::Zoned::now().date().to_string(),
            python: deployment::python(content.python()),
            settings: deployment::settings(copied.roots.iter(), self.config.max_map_length),
            active: active.filter_map(|dag| dag["dag_id"].as_str()).map(shell::quoted).collect(),
            email: shell::quoted(&self.config.admin_email),
            dags: content.dags.len(),
            files: copied.files,
            variables: content.variables.len(),
            connections: content.connections.len(),
            pools: content.pools.iter().filter_map(pool_arguments).collect(),
            suffix,
            history: history_counts.is_some(),
            findings: findings.all(),
            to_fill: &omitted_values,
        };
        deployment::write(folder, &template_context)?;
        let dag_entry = |dag: &Value| json!({"dag_id": dag["dag_id"], "file": dag["relative_fileloc"], "is_paused": dag["is_paused"]});
        // `export.json` lists the findings under the key `does_not_fit`.
        let report = json!({
            "airflow": airflow_version(), "leoflow": self.context.version, "python": template_context.python,
            "dags": content.dags.iter().map(dag_entry).collect::<Vec<_>>(), "files": copied.files, "requirements": pins,
            "module_roots": copied.roots, "encrypted": !suffix.is_empty(), "to_fill": omitted_values,
            "history": history_counts,
            "does_not_fit": findings.all(),
        });
        secrets::write_private_json(&folder.join("export.json"), &report)?;
        files::sync_file_system(folder).map_err(Error::cannot("write", folder))?;
        Ok(report)
    }

    /// Writes the pools, variables and connections. Returns the suffix of encrypted files, and the names of the values
    /// that are omitted because they may be secret.
    fn write_data_files(&self, folder: &Path) -> Result<(&'static str, Vec<String>), Error> {
        let variables = variables::to_airflow(&self.content.variables);
        let connections = connections::to_airflow(&self.content.connections);
        secrets::write_private_json(&folder.join("pools.json"), &pools::to_airflow(&self.content.pools))?;
        if !self.recipients.is_empty() {
            secrets::write_encrypted_json(&folder.join("variables.json.age"), &variables, self.recipients)?;
            secrets::write_encrypted_json(&folder.join("connections.json.age"), &connections, self.recipients)?;
            return Ok((".age", Vec::new()));
        }
        let (variables, omitted_variables) = secrets::variables_without_secrets(&variables);
        secrets::write_private_json(&folder.join("variables.json"), &variables)?;
        let (template, mut omitted_values) = secrets::connections_template(&connections);
        let name = if omitted_values.is_empty() { "connections.json" } else { "connections.template.json" };
        secrets::write_private_json(&folder.join(name), &template)?;
        omitted_values.extend(omitted_variables);
        Ok(("", omitted_values))
    }

    /// Writes `history.sql` and returns its numbers of rows.
    async fn write_history(&self, folder: &Path, suffix: &str, findings: &mut Findings) -> Result<Value, Error> {
        let datastore = Datastore::open(&self.context.operation(), "leoflow export").await?;
        let mut client = datastore.connect().await?;
        let counts = history::write(&mut client, &folder.join(format!("history.sql{suffix}")), self.recipients).await?;
        if counts.left_out > 0 {
            findings.add(
                counted(counts.left_out, "run"),
                "not finished, and so not in the history",
                "export again later, or trigger them in Airflow",
            );
        }
        Ok(json!({"runs": counts.runs, "task_instances": counts.task_instances}))
    }
}

/// Arguments of `airflow pools set`; `None` for `default_pool`, which Airflow creates itself.
fn pool_arguments(pool: &Value) -> Option<Pool> {
    let name = pool["name"].as_str().filter(|name| *name != DEFAULT_POOL)?;
    Some(Pool {
        name: shell::quoted(name),
        slots: pool["slots"].as_i64()?,
        description: shell::quoted(pool["description"].as_str().unwrap_or_default()),
        include_deferred: pool["include_deferred"] == true,
    })
}
