//! `leoflow init DIR`.

use crate::api_client::dag_path;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::leoflow_yaml;
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::{env_vars, shell};
use leoflow_lifecycle::setup;
use leoflow_python::dag_files;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod vscode;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow init ~/leoflow/reports\n  leoflow init ~/leoflow/sales --with pandas,requests\n  \
                  leoflow init --vscode ~/leoflow/sales   also for a project that exists"
)]
pub struct Init {
    /// The project's folder; it is created, and must not contain a dag.py yet [default with --vscode: the current
    /// folder]
    #[arg(required_unless_present = "vscode")]
    pub folder: Option<PathBuf>,
    /// Add .vscode, to run and debug DAGs in VS Code, and the .venv of `leoflow env link`
    #[arg(long)]
    pub vscode: bool,
    /// Packages to add to its leoflow.yaml as dependencies, comma-separated, in pip's syntax
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
    pub with: Vec<String>,
}

pub async fn run(context: &Context<'_>, args: &Init) -> Result<u8, Error> {
    // Without the part `.`.
    let folder = env_vars::absolute(args.folder.as_deref().unwrap_or(Path::new("")))?.components().collect::<PathBuf>();
    let has_dags =
        || dag_files(&folder, context.workspace().ok().flatten().as_deref()).is_ok_and(|files| !files.is_empty());
    if args.vscode && args.with.is_empty() && has_dags() {
        let written = vscode::write(context, &folder).await?;
        return context.printer.show(&json!({"written": written}), |_| {});
    }
    create(context, args, folder).await
}

async fn create(context: &Context<'_>, args: &Init, folder: PathBuf) -> Result<u8, Error> {
    let settings = folder.join(leoflow_yaml::FILE);
    // The settings are written before the DAG file, because the server imports the DAG file as soon as it appears.
    let settings_text = match leoflow_yaml::add_dependencies("", &args.with) {
        Ok(text) if !text.is_empty() && !settings.exists() => Some(text),
        Ok(text) if text.is_empty() => None,
        Ok(_) => {
            return Err(Error::failed(format!("{} already exists", settings.display())).hint(format!(
                "leoflow add {} --project {}",
                args.with.join(" "),
                folder.display()
            )));
        }
        Err(error) => return Err(Error::failed(format!("--with {}", args.with.join(","))).cause(error)),
    };
    if folder.join("dag.py").exists() {
        return Err(already_exists(&folder));
    }
    if let Some(text) = settings_text {
        folders::create_all(&folder).map_err(Error::cannot("write", &folder))?;
        files::write_atomic(&settings, text.as_bytes(), 0o644).map_err(Error::cannot("write", &settings))?;
    }
    let dag_id = dag_id_of(&folder.file_name().unwrap_or_default().to_string_lossy());
    let file = setup::make_project(&folder, &dag_id).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => already_exists(&folder),
        _ => Error::io("write", &folder, &error),
    })?;
    let workspace = context.workspace()?;
    // With dependencies, the server first builds the environment, which may take longer than this wait.
    if args.with.is_empty() && workspace.as_ref().is_some_and(|workspace| file.starts_with(workspace)) {
        wait_until_imported(context, &dag_id).await;
    }
    let mut result = json!({"dag_id": dag_id, "file": file});
    let mut failure = None;
    if args.vscode {
        match vscode::write(context, &folder).await {
            Ok(written) => result["written"] = json!(written),
            Err(error) => failure = Some(error),
        }
    }
    let exit_code = context.printer.show(&result, |printer| {
        printer.line(format!("Created {} with the DAG {dag_id}", file.display()));
        let Some(workspace) = workspace.filter(|workspace| !file.starts_with(workspace)) else {
            return printer.note(format!("Run it with: leoflow dags trigger {dag_id} --wait"));
        };
        let shown = workspace.display();
        printer.warning(format!("the project is outside the workspace {shown}, so Leoflow does not run it"));
        if let Some(name) = folder.file_name() {
            let inside = workspace.join(name);
            let command = format!("leoflow init {}", shell::word(&inside.to_string_lossy()));
            printer.note(format!("hint: move it to {}, or run {command}", inside.display()));
        }
    })?;
    failure.map_or(Ok(exit_code), Err)
}

/// How long to wait until the running server has imported the new DAG, so that the next command finds it.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the running server has imported the DAG, at most `IMPORT_TIMEOUT`. Returns at once without a server.
/// Other commands report a DAG that cannot be imported.
async fn wait_until_imported(context: &Context<'_>, dag_id: &str) {
    if !context.home.api_socket().exists() {
        return;
    }
    let api = context.api();
    let path = dag_path(dag_id);
    let imported = async {
        while let Err(error) = api.get::<Value>(&path).await
            && !error.is_transient
        {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    // The import may take longer; nothing depends on its end.
    let _ = tokio::time::timeout(IMPORT_TIMEOUT, imported).await;
}

fn already_exists(folder: &Path) -> Error {
    Error::failed(format!("{} already exists", folder.join("dag.py").display()))
        .hint("nothing was changed; choose another folder")
}

/// Turns a folder's name into a valid dag_id.
fn dag_id_of(name: &str) -> String {
    let id: String =
        name.chars().map(|c| if c.is_alphanumeric() || "_-.".contains(c) { c } else { '_' }).take(250).collect();
    if id.chars().all(|c| c == '.') { "dag".to_owned() } else { id }
}
