//! `leoflow instances`.

use super::{setup, uninstall};
use crate::cli::args::{Restore, Setup, Uninstall};
use crate::cli::instance_args::InstancesCommand;
use crate::commands::context::Context;
use crate::commands::lite::{backup, restore};
use crate::config::{self, DEFAULT_PORT};
use crate::error::Error;
use crate::home::{Home, all_instances, config_files, instances, resolve};
use crate::protocol::control;
use crate::protocol::status::InstanceState;
use crate::setup::installed_version;
use crate::sys::files;
use serde_json::json;
use std::path::{Path, PathBuf};

pub async fn run(context: &Context<'_>, command: Option<&InstancesCommand>) -> Result<u8, Error> {
    match command {
        None | Some(InstancesCommand::List) => list(context),
        Some(InstancesCommand::Create { name, port, workspace }) => {
            create(context, name, *port, workspace.as_deref()).await
        }
        Some(InstancesCommand::Clone { name, from }) => clone(context, name, from.as_deref()).await,
        Some(InstancesCommand::Remove { name, yes }) => remove(context, name, *yes),
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let all: Vec<_> = all_instances().into_iter().map(|(name, home)| Shown::of(context, name, &home)).collect();
    let printer = context.printer;
    if printer.json {
        let all: Vec<_> = all.iter().map(Shown::as_json).collect();
        printer.json(&json!({"instances": all}))?;
        return Ok(0);
    }
    if all.is_empty() {
        printer.note("There is no instance of yours on this machine.");
        printer.note("Set the usual one up:  leoflow lite start");
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = all.iter().map(Shown::row).collect();
    printer.table(&["INSTANCE", "STATE", "URL", "VERSION", "HOME", "WORKSPACE"], &rows);
    Ok(0)
}

struct Shown {
    name: String,
    state: InstanceState,
    url: String,
    version: Option<String>,
    home: PathBuf,
    workspace: Option<PathBuf>,
}

impl Shown {
    fn of(context: &Context<'_>, name: String, home: &Home) -> Self {
        let config = config::load_files(&home.config()).ok().flatten().map(|loaded| loaded.config);
        let status = control::status_of(home);
        let port = config.as_ref().map_or(DEFAULT_PORT, |config| config.port);
        Self {
            name,
            state: status.as_ref().map_or(InstanceState::Stopped, |status| status.state),
            url: status.map_or_else(|| context.url(config.as_ref(), port), |status| status.url),
            version: installed_version(home),
            home: home.root().to_owned(),
            workspace: config.and_then(|config| config.workspace),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        json!({
            "name": self.name, "state": self.state, "url": self.url, "version": self.version, "home": self.home,
            "workspace": self.workspace,
        })
    }

    fn row(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec![
            self.name.clone(),
            self.state.to_string(),
            self.url.clone(),
            self.version.clone().unwrap_or_default(),
            path(&self.home),
            self.workspace.as_deref().map(path).unwrap_or_default(),
        ]
    }
}

/// The same commands, for another home.
fn of_home<'a>(context: &Context<'a>, home: Home) -> Context<'a> {
    Context { home, ..*context }
}

fn home_of(name: &str) -> Result<Home, Error> {
    Ok(resolve(Some(&instances::root(name)?))?)
}

fn new_home(name: &str) -> Result<Home, Error> {
    let home = home_of(name)?;
    match home.exists() {
        true => Err(Error::refused(format!("there is something in {} already", home.root().display()))
            .hint("leoflow instances list")
            .hint("choose another name; nothing was changed")),
        false => Ok(home),
    }
}

async fn create(context: &Context<'_>, name: &str, port: Option<u16>, workspace: Option<&Path>) -> Result<u8, Error> {
    let new = of_home(context, new_home(name)?);
    let args = Setup {
        workspace: workspace.map(Path::to_owned),
        port,
        datastore: None,
        non_interactive: true,
        modify_path: false,
        dry_run: false,
    };
    setup::run(&new, &args).await
}

/// A backup of one, restored as the other: what cannot be restored is not copied.
async fn clone(context: &Context<'_>, name: &str, from: Option<&str>) -> Result<u8, Error> {
    let new = of_home(context, new_home(name)?);
    let old = match from {
        Some(from) => of_home(context, home_of(from)?),
        None => of_home(context, context.home.clone()),
    };
    if !old.home.exists() {
        return Err(Error::failed(format!("there is no instance in {}", old.home.root().display()))
            .hint("leoflow instances list"));
    }
    // What a clone leaves that is killed, the next start of the first removes: it is not encrypted.
    let folder = files::temporary_neighbour(&old.home.run().join("clone"));
    files::create_private_dir(&folder).map_err(|error| Error::io("create", &folder, &error))?;
    let copied = copy(&old, &new, &folder.join("copy.tar.zst")).await;
    let removed = files::remove_any(&folder).map_err(|error| Error::io("remove", &folder, &error));
    copied.and(removed)?;
    let shown = Shown::of(context, name.to_owned(), &new.home);
    if context.printer.json {
        context.printer.json(&shown.as_json())?;
        return Ok(0);
    }
    context.printer.line(format!("{name} is a copy of {}", old.home.root().display()));
    context.printer.line(format!("  page       {}   (once it runs; the password is the same)", shown.url));
    context.printer.line(format!("  start it:  leoflow --instance {name} lite start"));
    if config_files::over(&old.home.config()).is_ok_and(|over| !over.is_empty()) {
        context.printer.warning(format!(
            "the config-*.yaml of {} are not copied: what they say, as a port, may not be for both",
            old.home.root().display()
        ));
    }
    context.printer.line("  DAGs with a schedule run there too then: pause those that must not");
    Ok(0)
}

async fn copy(old: &Context<'_>, new: &Context<'_>, file: &Path) -> Result<(), Error> {
    backup::write_plain(old, file).await?;
    restore::into_new(new, &Restore { yes: true, ..Restore::default() }, file).await?;
    let name = instances::name_of(&new.home).unwrap_or_default();
    Ok(config::update(&new.home, |_| vec![("instance_name", name.into())])?)
}

fn remove(context: &Context<'_>, name: &str, yes: bool) -> Result<u8, Error> {
    let gone = of_home(context, home_of(name)?);
    let args = Uninstall {
        purge: true,
        dry_run: false,
        yes,
        keep_workspace: false,
        include_workspace: false,
        include_repositories: false,
    };
    uninstall::run(&gone, &args)
}
