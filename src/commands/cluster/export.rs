//! `leoflow export airflow`.

use super::dag_folder::Direction;
use super::deployment::{self, Facts, Pool};
use super::findings::{Finding, Findings};
use super::{AIRFLOW, dag_folder, history, requirements, secrets};
use crate::cli::api::{Api, list_of};
use crate::cli::cluster_args::ExportAirflow;
use crate::commands::context::Context;
use crate::commands::data::{connections, connections_format, pools, variables};
use crate::config::{Config, Recipient};
use crate::engine::dag::DEFAULT_POOL;
use crate::engine::store::connections::Connection;
use crate::engine::store::variables::Variable;
use crate::error::Error;
use crate::recovery::datastore::{Datastore, not_set_up};
use crate::sys::files;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const AIRFLOWS_DEFAULT_SLOTS: i64 = 128;

pub async fn airflow(context: &Context<'_>, args: &ExportAirflow) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let config = config.ok_or_else(not_set_up)?;
    let workspace =
        config.workspace.clone().ok_or_else(|| Error::failed("there is no workspace").hint("leoflow setup"))?;
    let recipients = recipients(args, &config)?;
    if recipients.is_empty() && config.backup.passphrase.is_some() && !args.no_secrets {
        context.printer.note("backup.passphrase is for backups alone; --recipient KEY encrypts an export");
    }
    let output = std::path::absolute(&args.output).map_err(|error| Error::io("find", &args.output, &error))?;
    refuse_what_is_there(&output, &workspace)?;
    let found = Found::read(&Api::new(&context.home)).await?;
    let mut findings = Findings::default();
    found.tell(&mut findings);

    // Whole or absent: it is made beside its place.
    let made = files::temporary_neighbour(&output);
    let export = Export { context, config: &config, workspace: &workspace, recipients: &recipients, found: &found };
    let outcome = export.write(&made, args.history, &mut findings).await;
    let moved = outcome.and_then(|told| {
        files::rename_to_new(&made, &output).map_err(|error| Error::io("create", &output, &error))?;
        Ok(told)
    });
    let told = moved.inspect_err(|_| drop(files::remove_any(&made)))?;
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({"output": output, "export": told}))?;
        return Ok(0);
    }
    printer.line(format!("Written for Apache Airflow {AIRFLOW}: {}", output.display()));
    printer.line(format!(
        "  {} DAGs, {} variables, {} connections, {} pools",
        found.dags.len(),
        found.variables.len(),
        found.connections.len(),
        found.pools.len()
    ));
    if let Some(history) = told["history"].as_object() {
        printer.line(format!("  {} runs with {} task instances", history["runs"], history["task_instances"]));
    }
    for name in list_of(&told["to_fill"]).filter_map(Value::as_str) {
        printer.warning(format!("left out, because it may be secret and there is no --recipient: {name}"));
    }
    for Finding { what, why, remedy } in findings.all() {
        printer.warning(format!("{what}: {why}; {remedy}"));
    }
    printer.line(format!("How it goes on: {}", output.join("README.md").display()));
    Ok(0)
}

fn recipients(args: &ExportAirflow, config: &Config) -> Result<Vec<Recipient>, Error> {
    if args.no_secrets {
        return Ok(Vec::new());
    }
    if args.recipient.is_empty() {
        return Ok(config.backup.recipients.clone());
    }
    let read = |text: &String| {
        Recipient::parse(text).ok_or_else(|| {
            Error::usage(format!("{text:?} is no public key"))
                .hint("a key is age1… or ssh-ed25519 …; `age-keygen` makes one")
        })
    };
    args.recipient.iter().map(read).collect()
}

fn refuse_what_is_there(output: &Path, workspace: &Path) -> Result<(), Error> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let parent = output.parent().unwrap_or(output);
    if real(parent).starts_with(real(workspace)) {
        return Err(Error::usage("it would be in the workspace, where its DAG files would count as DAGs")
            .hint("choose a folder elsewhere"));
    }
    if !parent.is_dir() {
        return Err(Error::usage(format!("there is no folder {}", parent.display()))
            .hint(format!("mkdir -p {}", parent.display())));
    }
    match fs::symlink_metadata(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", output, &error)),
        Ok(_) => Err(Error::refused(format!("{} is there already", output.display()))
            .hint("choose another name, or move it away")),
    }
}

/// What the server tells.
struct Found {
    dags: Vec<Value>,
    import_errors: Vec<Value>,
    environments: Value,
    variables: Vec<Variable>,
    connections: Vec<Connection>,
    pools: Vec<Value>,
}

impl Found {
    async fn read(api: &Api<'_>) -> Result<Self, Error> {
        Ok(Self {
            dags: api.all("/api/v2/dags", "&order_by=dag_id", "dags").await?,
            import_errors: api.all("/api/v2/importErrors", "", "import_errors").await?,
            environments: api.get("/local/environments").await?,
            variables: api.patient().get(variables::LOCAL).await?,
            connections: api.patient().get(connections::LOCAL).await?,
            pools: api.all(pools::POOLS, "", "pools").await?,
        })
    }

    fn tell(&self, findings: &mut Findings) {
        let default =
            self.pools.iter().find(|pool| pool["name"] == DEFAULT_POOL).and_then(|pool| pool["slots"].as_i64());
        if let Some(slots) = default.filter(|slots| *slots != AIRFLOWS_DEFAULT_SLOTS) {
            findings.add(
                format!("pool {DEFAULT_POOL}"),
                format!("it has {slots} slots here, and {AIRFLOWS_DEFAULT_SLOTS} in a new Airflow"),
                format!("airflow pools set {DEFAULT_POOL} {slots} ''"),
            );
        }
        for error in &self.import_errors {
            let file = error["filename"].as_str().unwrap_or_default();
            findings.add(file, "it cannot be imported here", "mend it first: leoflow validate");
        }
        for wanted in list_of(&self.environments["wanted"]).filter(|one| one["state"] != "ready") {
            let files: Vec<&str> = list_of(&wanted["files"]).filter_map(Value::as_str).collect();
            findings.add(
                files.join(", "),
                "its environment is not there, so its versions are not known",
                "leoflow env list",
            );
        }
    }

    fn python(&self) -> Option<&str> {
        list_of(&self.environments["environments"])
            .filter(|one| list_of(&one["dags"]).count() > 0)
            .find_map(|one| one["python"].as_str())
    }
}

struct Export<'a> {
    context: &'a Context<'a>,
    config: &'a Config,
    workspace: &'a Path,
    recipients: &'a [Recipient],
    found: &'a Found,
}

impl Export<'_> {
    /// Writes all of it into a new folder. Returns what `export.json` says.
    async fn write(&self, folder: &Path, history: bool, findings: &mut Findings) -> Result<Value, Error> {
        files::create_private_dir(folder).map_err(|error| Error::io("create", folder, &error))?;
        let copied = dag_folder::copy(self.workspace, Some(&folder.join("dags")), Direction::ToAirflow, findings)?;
        let pins = requirements::lines(&self.found.environments, findings);
        let path = folder.join("requirements.txt");
        let text: String = pins.iter().map(|pin| format!("{pin}\n")).collect();
        files::write_atomic(&path, text.as_bytes(), 0o644).map_err(|error| Error::io("write", &path, &error))?;
        let (suffix, to_fill) = self.write_secrets(folder)?;
        let history = match history {
            true => Some(self.write_history(folder, suffix, findings).await?),
            false => None,
        };
        let found = self.found;
        let is_active = |dag: &&Value| dag["is_paused"] == false;
        let facts = Facts {
            airflow: AIRFLOW,
            leoflow: self.context.version,
            date: jiff::Zoned::now().date().to_string(),
            python: deployment::python(found.python()),
            settings: deployment::settings(copied.roots.iter(), self.config.max_map_length),
            active: found
                .dags
                .iter()
                .filter(is_active)
                .filter_map(|dag| dag["dag_id"].as_str())
                .map(shell_word)
                .collect(),
            email: shell_word(&self.config.admin_email),
            dags: found.dags.len(),
            files: copied.files,
            variables: found.variables.len(),
            connections: found.connections.len(),
            pools: found.pools.iter().filter_map(pool).collect(),
            suffix,
            history: history.is_some(),
            findings: findings.all(),
            to_fill: &to_fill,
        };
        deployment::write(folder, &facts)?;
        let dag = |dag: &Value| json!({"dag_id": dag["dag_id"], "file": dag["relative_fileloc"], "is_paused": dag["is_paused"]});
        let told = json!({
            "airflow": AIRFLOW, "leoflow": self.context.version, "python": facts.python,
            "dags": found.dags.iter().map(dag).collect::<Vec<_>>(), "files": copied.files, "requirements": pins,
            "module_roots": copied.roots, "encrypted": !suffix.is_empty(), "to_fill": to_fill, "history": history,
            "does_not_fit": findings.all(),
        });
        secrets::write(&folder.join("export.json"), &told)?;
        files::sync_file_system(folder).map_err(|error| Error::io("write", folder, &error))?;
        Ok(told)
    }

    /// The ending of encrypted files, and what is to be filled in.
    fn write_secrets(&self, folder: &Path) -> Result<(&'static str, Vec<String>), Error> {
        let variables = variables::to_airflow(&self.found.variables);
        let connections = connections_format::to_airflow(&self.found.connections);
        secrets::write(&folder.join("pools.json"), &pools::to_airflow(&self.found.pools))?;
        if !self.recipients.is_empty() {
            secrets::write_encrypted(&folder.join("variables.json.age"), &variables, self.recipients)?;
            secrets::write_encrypted(&folder.join("connections.json.age"), &connections, self.recipients)?;
            return Ok((".age", Vec::new()));
        }
        let (variables, hidden) = secrets::open_variables(&variables);
        secrets::write(&folder.join("variables.json"), &variables)?;
        let (template, mut to_fill) = secrets::template(&connections);
        let name: PathBuf =
            folder.join(if to_fill.is_empty() { "connections.json" } else { "connections.template.json" });
        secrets::write(&name, &template)?;
        to_fill.extend(hidden);
        Ok(("", to_fill))
    }

    async fn write_history(&self, folder: &Path, suffix: &str, findings: &mut Findings) -> Result<Value, Error> {
        let datastore = Datastore::open(&self.context.recovery(), "leoflow export").await?;
        let mut client = datastore.connect().await?;
        let counts = history::write(&mut client, &folder.join(format!("history.sql{suffix}")), self.recipients).await?;
        if counts.left_out > 0 {
            findings.add(
                format!("{} runs", counts.left_out),
                "they are not over, and so not in the history",
                "export again when they are, or trigger them anew",
            );
        }
        Ok(json!({"runs": counts.runs, "task_instances": counts.task_instances}))
    }
}

/// Airflow makes `default_pool` itself.
fn pool(pool: &Value) -> Option<Pool> {
    let name = pool["name"].as_str().filter(|name| *name != DEFAULT_POOL)?;
    Some(Pool {
        name: shell_word(name),
        slots: pool["slots"].as_i64()?,
        description: shell_word(pool["description"].as_str().unwrap_or_default()),
        include_deferred: pool["include_deferred"] == true,
    })
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
