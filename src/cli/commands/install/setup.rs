//! `leoflow setup`: sets up everything that `leoflow lite` needs, without starting it.

use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::{self, DEFAULT_PORT, DatastoreSetting};
use leoflow_base::home::absolute_workspace;
use leoflow_base::protocol::control;
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::operation::open::AfterUpgrade;
use leoflow_lifecycle::operation::set_up;
use leoflow_lifecycle::setup::{self, Plan, Request};
use leoflow_lifecycle::upgrade::release::{program, stage, version_order};
use leoflow_postgres::acquire::Sources;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::schema::{embedded, known};
use leoflow_python::{self as python, environments};
use semver::Version;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args, Debug, Default)]
#[command(
    after_help = "Examples:\n  leoflow setup                                 set everything up\n  leoflow setup --dry-run                       print the plan only\n  leoflow setup --datastore env:DATABASE_URL    use your own PostgreSQL"
)]
pub struct Setup {
    /// The folder for your projects [default: ~/leoflow]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// The TCP port to write to config.yaml [default: 8088]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The datastore: managed, docker, postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME that holds
    /// such a URL [default: managed]
    #[arg(long, value_name = "WHERE")]
    pub datastore: Option<String>,
    /// Never prompt
    #[arg(long)]
    pub non_interactive: bool,
    /// Add the home's `bin` folder to the PATH in your shell's startup files
    #[arg(long)]
    pub modify_path: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

pub async fn run(context: &Context<'_>, args: &Setup) -> Result<u8, Error> {
    context.operation().refuse_half_purged()?;
    let request = Request {
        port: args.port.or_else(|| (!context.home.config().exists()).then(|| setup::own_port(&context.home))),
        workspace: args.workspace.as_deref().map(absolute_workspace).transpose()?,
        datastore: args.datastore.as_deref().map(parse_datastore).transpose()?,
        install_always: true,
    };
    refuse_newer(context)?;
    if !args.dry_run {
        packaged::before_start(context, context.printer).await?;
    }
    let plan = set_up::plan(&context.home, context.version, &request)?;
    if args.dry_run {
        packaged::print_plan(context);
        set_up::check_planned_datastore(&context.home, &plan, context.printer).await?;
        return show_plan(context, &plan);
    }
    let password = if plan.steps.is_empty() && !plan.resumes {
        // There is nothing to do, so the command also works while an instance runs.
        None
    } else if plan.is_only_extras() {
        setup::get_extras(&context.home, &plan, &Sources::for_home(&context.home), context.printer).await;
        None
    } else {
        set_up_home(context, &request).await?
    };
    show_result(context, &plan, password.as_deref())?;
    if password.is_some() && !context.printer.stdout_closed() {
        setup::mark_password_shown(&context.home)?;
    }
    if args.modify_path {
        modify_path(context);
    }
    Ok(0)
}

/// Sets up the home. After an error, removes a home that is new and still empty.
async fn set_up_home(context: &Context<'_>, request: &Request) -> Result<Option<String>, Error> {
    let home = &context.home;
    let created_home = !home.exists();
    home.create().map_err(Error::cannot("create", home.root()))?;
    let lock = context.operation().take_home("leoflow setup", None, AfterUpgrade::ExecInstalled).await?;
    let outcome = set_up::apply(home, context.version, request, context.printer).await.map_err(Error::from);
    drop(lock);
    match &outcome {
        // An earlier, interrupted creation of this instance is complete now.
        Ok(_) => super::creation::complete(home)?,
        Err(_) if created_home => home.remove_if_unused("leoflow setup"),
        Err(_) => {}
    }
    outcome
}

/// Refuses to install this program over a newer one, or over one that knows a newer schema, to which it may have
/// migrated the datastore.
fn refuse_newer(context: &Context<'_>) -> Result<(), Error> {
    let home = &context.home;
    let installed = setup::linked_version(home).filter(|version| version != context.version);
    let Some(version) = installed.and_then(|version| Version::parse(&version).ok()) else { return Ok(()) };
    // An installed program that does not run is repaired by this setup.
    let Ok(about) = program::about(&stage::program_of(home, &version)) else { return Ok(()) };
    let own_schema = embedded::newest(known());
    let own = Version::parse(context.version).map_err(Error::bug)?;
    let is_newer = about.schema_version > own_schema || version_order::compare(&version, &own).is_gt();
    if !is_newer || cluster::state(home) != ClusterState::Ready {
        return Ok(());
    }
    let installed_schema = about.schema_version;
    Err(Error::refused(format!(
        "leoflow {version} with schema {installed_schema} is installed here; this is {own}, which knows schemas up to \
         {own_schema}"
    ))
    .hint(format!("run the installed one: {}", home.bin().join("leoflow").display()))
    .hint("or roll back to this one, with your data: leoflow rollback"))
}

/// Adds `bin/` to the PATH. A failure is only a warning, because everything else is set up.
fn modify_path(context: &Context<'_>) {
    let path_command = context.path_command();
    let Some(user_home) = env_vars::user_home() else {
        return context.printer.warning(format!("HOME is not set; run this yourself: {path_command}"));
    };
    match setup::add_to_path(&context.home, &user_home) {
        Ok(added) => {
            for (path, error) in &added.failed {
                context
                    .printer
                    .warning(format!("cannot write {}: {error}; run this yourself: {path_command}", path.display()));
            }
            if !added.files.is_empty() {
                let names: Vec<String> = added.files.iter().map(|path| path.display().to_string()).collect();
                let is_complete = added.unsupported_shell.is_none() && added.failed.is_empty();
                let next = if is_complete { "; open a new terminal to use it" } else { "" };
                context.printer.note(format!("Added leoflow to the PATH in {}{next}", names.join(", ")));
            }
            if let Some(shell) = added.unsupported_shell {
                context.printer.warning(format!(
                    "your shell ({shell}) reads other files; add this folder to its PATH: {}",
                    context.home.bin().display()
                ));
            }
        }
        Err(error) => context.printer.warning(format!("{error}; run this yourself: {path_command}")),
    }
}

fn show_plan(context: &Context<'_>, plan: &Plan) -> Result<u8, Error> {
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    context.printer.show(&json!({"steps": steps, "resumes": plan.resumes}), |printer| {
        if plan.resumes {
            printer.line("Would finish an interrupted setup");
        }
        steps.iter().for_each(|step| printer.line(format!("Would {step}")));
        if steps.is_empty() {
            printer.line("Everything is set up; nothing to do");
        }
    })
}

fn show_result(context: &Context<'_>, plan: &Plan, password: Option<&str>) -> Result<u8, Error> {
    let home = &context.home;
    let config = config::load(&home.config())?.map(|loaded| loaded.config);
    let running = control::status_of(home);
    let url = running.as_ref().map_or_else(
        || context.url(config.as_ref(), config.as_ref().map_or(DEFAULT_PORT, |config| config.port)),
        |status| status.url.clone(),
    );
    let configured_python = config.as_ref().and_then(|config| config.python.clone());
    let email = config.map(|config| config.admin_email).unwrap_or_default();
    let value = json!({
        "home": home.root(), "workspace": plan.workspace, "url": url, "admin_email": email, "admin_password": password,
    });
    context.printer.show(&value, |printer| {
        printer.line(format!("Leoflow is set up in {}", home.root().display()));
        printer.line(format!("  workspace  {}", plan.workspace.display()));
        let state = if running.is_some() { "running" } else { "once it runs" };
        printer.line(format!("  URL        {url}   ({state})"));
        if let Some(password) = password {
            printer.line(format!("  e-mail     {email}"));
            printer.line(format!("  password   {password}   (shown only now)"));
        }
        let own_program = home.bin().join("leoflow");
        // The shell may find none, or one of another release.
        let finds_other = setup::first_on_path().is_none() || setup::other_copy(home).is_some();
        let program =
            if finds_other && own_program.exists() { own_program.display().to_string() } else { "leoflow".into() };
        show_python(context, configured_python.as_deref());
        let option = printer.home_option();
        match &running {
            Some(_) => printer.line(format!("It is running; its state:  {program}{option} lite status")),
            None => printer.line(format!("Start it:  {program}{option} lite start")),
        }
        if let Some(hint) = context.path_hint() {
            printer.line(format!("To put `leoflow` on your PATH:  {hint}"));
        }
    })
}

/// Says what happens if no Python was found.
fn show_python(context: &Context<'_>, configured: Option<&Path>) {
    let Err(reason) = python::find(configured) else { return };
    if configured.is_none() && environments::find_uv(&context.home).is_some() {
        return context.printer.line("This machine has no Python for your DAGs; Leoflow installs one when it starts");
    }
    let (major, minor) = python::MINIMUM;
    context.printer.warning(format!(
        "no usable Python for your DAGs ({reason}): install Python {major}.{minor} or newer, or set one with \
         `leoflow config set python PATH`"
    ));
}

fn parse_datastore(text: &str) -> Result<DatastoreSetting, Error> {
    DatastoreSetting::parse(text).map_err(|allowed| Error::usage(format!("--datastore is not {allowed}")))
}
