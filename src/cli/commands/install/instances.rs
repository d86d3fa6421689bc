//! `leoflow instances`.

use super::creation;
use super::setup::{self, Setup};
use super::uninstall::{self, Uninstall};
use crate::commands::backup::restore_args::Restore;
use crate::commands::backup::{create, restore};
use crate::commands::bring::brought_folders;
use crate::commands::lite::status::{NO_INSTANCES, status_of_home, statuses_of_homes};
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};
use leoflow_base::config;
use leoflow_base::home::{
    Home, absolute_workspace, all_instances_and_incomplete, config_files, instances, lock, resolve,
};
use leoflow_base::protocol::status::InstanceStatus;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::setup::installed_version;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow instances                       list the instances on this machine\n  leoflow instances create staging        create ~/.leoflow-staging with its own port\n  \
                  leoflow --instance staging lite start   every command takes --instance, or LEOFLOW_INSTANCE\n  leoflow instances clone trial           copy the default instance with all its data"
)]
pub struct Instances {
    #[command(subcommand)]
    pub command: Option<InstancesCommand>,
}

#[derive(Subcommand, Debug)]
pub enum InstancesCommand {
    /// List the instances on this machine and their status
    #[command(after_help = "Example:\n  leoflow instances list --json")]
    List,
    /// Create an instance with its own home, workspace and port
    #[command(
        after_help = "Examples:\n  leoflow instances create staging\n  leoflow instances create staging --port 9000"
    )]
    Create {
        /// The new instance's name: lower-case letters, digits, - and _
        name: String,
        /// Its TCP port [default: the first from 8089 that no other instance uses]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Its workspace, the folder for projects [default: ~/leoflow-NAME]
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
    },
    /// Clone an instance, with its data, workspace and password, under another name
    #[command(
        after_help = "Examples:\n  leoflow instances clone trial                  clone the default instance\n  leoflow instances clone trial --from staging\n\n\
                      The copy is not started. Its DAGs keep their state: once it starts, active DAGs with a schedule run there too."
    )]
    Clone {
        /// The copy's name: lower-case letters, digits, - and _
        name: String,
        /// The instance to copy [default: that of --instance, or the default instance]
        #[arg(long, value_name = "NAME")]
        from: Option<String>,
    },
    /// Remove an instance and all its data
    #[command(after_help = "Example:\n  leoflow instances remove trial")]
    Remove {
        /// The instance's name
        name: String,
        #[command(flatten)]
        options: RemoveOptions,
    },
}

#[derive(Args, Debug)]
pub struct RemoveOptions {
    /// Skip the confirmation prompt
    #[arg(long)]
    yes: bool,
    /// Keep the workspace
    #[arg(long)]
    keep_workspace: bool,
    /// Also remove a workspace that existed before the instance
    #[arg(long, conflicts_with = "keep_workspace")]
    include_workspace: bool,
    /// Also remove repositories with uncommitted or unpushed work
    #[arg(long)]
    include_repositories: bool,
}

pub async fn run(context: &Context<'_>, command: Option<&InstancesCommand>) -> Result<u8, Error> {
    match command {
        None | Some(InstancesCommand::List) => list(context),
        Some(InstancesCommand::Create { name, port, workspace }) => {
            create(context, name, *port, workspace.as_deref()).await
        }
        Some(InstancesCommand::Clone { name, from }) => clone(context, name, from.as_deref()).await,
        Some(InstancesCommand::Remove { name, options }) => remove(context, name, options),
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let instances = all_instances_and_incomplete();
    let statuses = statuses_of_homes(context, instances.iter().map(|(_, home)| home.clone()).collect());
    let rows: Vec<_> = instances
        .into_iter()
        .zip(statuses)
        .map(|((name, home), status)| InstanceRow::read(name, &home, status))
        .collect();
    context.printer.show(&json!({"instances": rows}), |printer| {
        if rows.is_empty() {
            return printer.note(NO_INSTANCES);
        }
        printer.table(&["INSTANCE", "STATE", "URL", "VERSION", "HOME", "WORKSPACE"], rows.iter().map(InstanceRow::row));
        for InstanceRow { name, repositories, .. } in &rows {
            for BroughtRepository { path, exists } in repositories {
                let path = path.display();
                printer.note(match exists {
                    true => format!("{name} has the DAGs of {path}"),
                    false => format!(
                        "{name} has the DAGs of {path}, which no longer exists; to remove the instance and its data: \
                         leoflow instances remove {name}"
                    ),
                });
            }
        }
        for InstanceRow { name, .. } in rows.iter().filter(|row| row.state == INCOMPLETE) {
            printer.note(format!(
                "The creation of {name} was interrupted: create it again, or run leoflow instances remove {name}"
            ));
        }
    })
}

/// State of an instance whose creation was interrupted.
const INCOMPLETE: &str = "incomplete";

#[derive(Serialize)]
struct InstanceRow {
    name: String,
    state: String,
    url: String,
    version: Option<String>,
    home: PathBuf,
    workspace: Option<PathBuf>,
    /// The repositories that `leoflow bring` has brought.
    repositories: Vec<BroughtRepository>,
}

#[derive(Serialize)]
struct BroughtRepository {
    path: PathBuf,
    exists: bool,
}

impl InstanceRow {
    /// Reads the configuration of an instance with this status.
    fn read(name: String, home: &Home, status: InstanceStatus) -> Self {
        let config = config::load_files(&home.config()).ok().flatten().map(|loaded| loaded.config);
        let is_incomplete = status.processes.is_empty() && instances::is_incomplete(home);
        let state = match is_incomplete {
            true if lock::is_held(home).unwrap_or(false) => "creating".to_owned(),
            true => INCOMPLETE.to_owned(),
            false => status.state.to_string(),
        };
        Self {
            name,
            state,
            url: status.url,
            version: installed_version(home),
            home: home.root().to_owned(),
            workspace: config.and_then(|config| config.workspace),
            repositories: brought_folders(home)
                .into_iter()
                .map(|path| BroughtRepository { exists: path.exists(), path })
                .collect(),
        }
    }

    fn row(&self) -> [String; 6] {
        let path = |path: &Path| path.display().to_string();
        [
            self.name.clone(),
            self.state.clone(),
            self.url.clone(),
            self.version.clone().unwrap_or_default(),
            path(&self.home),
            self.workspace.as_deref().map(path).unwrap_or_default(),
        ]
    }
}

/// The home of a named instance.
fn instance_home(name: &str) -> Result<Home, Error> {
    Ok(resolve(Some(&instances::root(name)?))?)
}

/// Returns the home for a new instance, which must not exist. Removes a home left by an interrupted creation.
fn new_home(context: &Context<'_>, name: &str) -> Result<Home, Error> {
    let home = instance_home(name)?;
    if home.exists() && instances::is_incomplete(&home) {
        creation::discard(&home)?;
        context.printer.note(format!("Removed {}, whose creation was interrupted", home.root().display()));
    }
    match home.exists() {
        true => Err(Error::refused(format!("{} already exists", home.root().display()))
            .hint("leoflow instances list")
            .hint("nothing was changed; choose another name")),
        false => Ok(home),
    }
}

async fn create(context: &Context<'_>, name: &str, port: Option<u16>, workspace: Option<&Path>) -> Result<u8, Error> {
    let new_context = context.at(new_home(context, name)?);
    let args = Setup { workspace: workspace.map(Path::to_owned), port, ..Setup::default() };
    let workspace = match workspace {
        Some(workspace) => absolute_workspace(workspace)?,
        None => instances::default_workspace(&new_context.home)?,
    };
    creation::run(&new_context.home, &workspace, setup::run(&new_context, &args)).await
}

/// Backs up one instance and restores it as the new one, so the copy has passed every check of a restore.
async fn clone(context: &Context<'_>, name: &str, from: Option<&str>) -> Result<u8, Error> {
    let new_context = context.at(new_home(context, name)?);
    let old_context = context.at(from.map_or_else(|| Ok(context.home.clone()), instance_home)?);
    if !old_context.home.exists() {
        return Err(Error::failed(format!("no instance in {}", old_context.home.root().display()))
            .hint("leoflow instances list"));
    }
    // The backup is in the source's `run/`, so that after a kill the source's next start removes this unencrypted file.
    let folder = files::temporary_neighbour(&old_context.home.run().join("clone"));
    files::create_private_dir(&folder).map_err(Error::cannot("create", &folder))?;
    let copied = copy(&old_context, &new_context, &folder.join("copy.tar.zst")).await;
    let removed = files::remove_any(&folder).map_err(Error::cannot("remove", &folder));
    copied.and(removed)?;
    let new_status = status_of_home(&new_context);
    let new_row = InstanceRow::read(name.to_owned(), &new_context.home, new_status);
    context.printer.show(&new_row, |printer| {
        let old_home = old_context.home.root().display();
        printer.line(format!("Cloned {old_home} to {name}"));
        if let Some(version) = installed_version(&old_context.home).filter(|version| version != context.version) {
            printer.line(format!("  release    {} (the original stays at {version})", context.version));
        }
        printer.line(format!("  URL        {}   (once it runs; with the same password)", new_row.url));
        printer.line(format!("  start it:  leoflow --instance {name} lite start"));
        if config_files::override_files(&old_context.home.config()).is_ok_and(|over| !over.is_empty()) {
            printer.warning(format!(
                "config-*.yaml of {old_home} were not copied, because their settings, such as a port, may not suit both"
            ));
        }
        printer.line("  Once it starts, active DAGs with a schedule run there too; pause those that must not.");
    })
}

async fn copy(old_context: &Context<'_>, new_context: &Context<'_>, file: &Path) -> Result<(), Error> {
    create::write_plain(old_context, file).await?;
    let workspace = instances::default_workspace(&new_context.home)?;
    let args = Restore { yes: true, take_over_settings: true, ..Restore::default() };
    creation::run(&new_context.home, &workspace, restore::into_new(new_context, &args, file)).await?;
    // Both would write to the same place.
    config::rewrite(&new_context.home, |text| Ok(config::remove_subkey(text, "backup", "copies")?))?;
    let name = instances::name_of(&new_context.home).unwrap_or_default();
    Ok(config::update(&new_context.home, |_| vec![("instance_name", name.into())])?)
}

fn remove(context: &Context<'_>, name: &str, options: &RemoveOptions) -> Result<u8, Error> {
    let target = context.at(instance_home(name)?);
    if !target.home.root().exists() {
        return Err(Error::failed(format!("there is no instance {name:?}")).hint("leoflow instances list"));
    }
    let RemoveOptions { yes, keep_workspace, include_workspace, include_repositories } = *options;
    let args = Uninstall { purge: true, dry_run: false, yes, keep_workspace, include_workspace, include_repositories };
    uninstall::run(&target, &args)
}
