//! `leoflow service`.

use super::start_check::{self, Starter};
use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceStatus;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::operation::DryRun;
use leoflow_lifecycle::operation::instance;
use leoflow_lifecycle::setup::Receipt;
use leoflow_lifecycle::setup::service::{self, Facts, FileState, Instance, Manager, Service, Step, Unavailable};
use serde_json::json;
use std::path::Path;

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow service install          start Leoflow whenever you log in\n  \
                        leoflow service install --now    also start it now\n  leoflow service status           show whether it is installed and running\n  \
                        leoflow service uninstall        remove the service")]
pub enum ServiceCommand {
    /// Install a service of systemd (on a Mac: launchd) that starts Leoflow when you log in
    #[command(
        after_help = "Examples:\n  leoflow service install --now\n  leoflow service install --dry-run   print the file and change nothing\n\n\
                      systemd starts your services when you log in and stops them when you log out. With `loginctl enable-linger` it \
                      starts them at boot and keeps them running."
    )]
    Install {
        /// Start the service now; stops a Leoflow that was started by hand
        #[arg(long)]
        now: bool,
        /// Print the service file and what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Uninstall the service; your data stays
    #[command(after_help = "Examples:\n  leoflow service uninstall\n  leoflow service uninstall --now   also stop it")]
    Uninstall {
        /// Also stop Leoflow if it runs as the service
        #[arg(long)]
        now: bool,
        /// Print what would be removed and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the service; exits 0 only when it is installed
    #[command(after_help = "Example:\n  leoflow service status --json")]
    Status,
}

/// Whether the instance is started or stopped at once, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Yes,
    No,
}

/// From the value of `--now`.
impl From<bool> for Now {
    fn from(now: bool) -> Self {
        if now { Self::Yes } else { Self::No }
    }
}

pub fn run(context: &Context<'_>, command: &ServiceCommand) -> Result<u8, Error> {
    match command {
        ServiceCommand::Install { now, dry_run } => install(context, (*now).into(), (*dry_run).into()),
        ServiceCommand::Uninstall { now, dry_run } => uninstall(context, (*now).into(), (*dry_run).into()),
        ServiceCommand::Status => status(context),
    }
}

fn service_of_home(context: &Context<'_>) -> Result<Service, Error> {
    Service::of(&context.home)
        .ok_or_else(|| Error::failed("this user has no home directory, which services need").hint("set HOME"))
}

fn install(context: &Context<'_>, now: Now, dry_run: DryRun) -> Result<u8, Error> {
    let home = &context.home;
    let receipt = Receipt::load(home)?.ok_or_else(|| {
        Error::failed(format!("Leoflow is not set up in {}", home.root().display())).hint("leoflow setup")
    })?;
    if !receipt.password_shown {
        // A service has no terminal to show it in.
        return Err(Error::failed("the admin password was not shown yet").hint("show it with leoflow lite start"));
    }
    let service = service::installed(home)?.map_or_else(|| service_of_home(context), Ok)?;
    let status = control::status_of(home);
    let (main_pid, is_enabled) = match service.check_manager() {
        Ok(()) => (service.main_pid()?, service.is_enabled()?),
        // Without a manager nothing is enabled or runs.
        Err(unavailable) if dry_run == DryRun::Yes => {
            context.printer.warning(format!("{unavailable}; an installation needs it"));
            (None, false)
        }
        Err(unavailable) => return Err(unavailable.into()),
    };
    let is_active = main_pid.is_some() && status.as_ref().is_none_or(|status| Some(status.pid) == main_pid);
    let facts = Facts {
        file: service.file.clone(),
        unit: service.unit(),
        file_state: service.file_state(),
        is_enabled,
        is_active,
        instance: running_instance(status.as_ref()),
        now: now == Now::Yes,
    };
    let plan = service::plan(&facts)?;
    if dry_run == DryRun::Yes {
        return show_dry_run(context, &service, &plan);
    }
    let _operation_lock = OperationLock::take(home, "leoflow service install")?;
    if plan.contains(&Step::StopInstance) {
        packaged::refuse_newer(context)?;
        start_check::run(context, Starter::ServiceManager)?;
        start_check::address(context, Starter::ServiceManager, None)?;
    }
    for step in &plan {
        context.printer.part(|printer| printer.note(step.to_string()));
        apply_step(context, &service, step)?;
    }
    print_installed(context, &service, &plan)
}

/// How the instance runs now.
fn running_instance(status: Option<&InstanceStatus>) -> Instance {
    match status {
        None => Instance::NotRunning,
        Some(status) if status.detached => Instance::InBackground,
        Some(_) => Instance::InTerminal,
    }
}

fn apply_step(context: &Context<'_>, service: &Service, step: &Step) -> Result<(), Error> {
    match step {
        Step::Write(_) => {
            if let Some(copy) = service::write(&context.home, service)? {
                print_replaced(context, service, &copy);
            }
        }
        Step::Load => service.reload()?,
        Step::Enable(_) => service.enable()?,
        Step::StopInstance => drop(instance::stop_running(&context.home)?),
        Step::Start(_) => run_by_manager(context, |home| service.start(home))?,
    }
    Ok(())
}

/// Starts or restarts a service with `start`. On a failure, returns the error that the service has written: the manager
/// reports only that the start failed.
pub fn run_by_manager(
    context: &Context<'_>,
    start: impl FnOnce(&Home) -> Result<(), Unavailable>,
) -> Result<(), Error> {
    let failure = context.home.service_failure();
    files::remove_any(&failure).map_err(Error::cannot("remove", &failure))?;
    start(&context.home).map_err(|error| {
        let reason = files::read_text(&failure, 64 * 1024).ok().flatten();
        reason.and_then(|json| Error::from_child(&json)).unwrap_or_else(|| error.into())
    })
}

/// Warns that a service file was replaced that the user may have edited.
fn print_replaced(context: &Context<'_>, service: &Service, copy: &Path) {
    let file = service.file.display();
    let own_settings = match service.definition.manager {
        Manager::Systemd => format!("; settings of your own belong into {file}.d/*.conf, which stays"),
        Manager::Launchd => String::new(),
    };
    context.printer.warning(format!(
        "{file} was replaced: it had other settings, edited by hand or of another release; the old file is {}{own_settings}",
        copy.display()
    ));
}

fn show_dry_run(context: &Context<'_>, service: &Service, plan: &[Step]) -> Result<u8, Error> {
    let text = service.definition.text();
    let steps: Vec<String> = plan.iter().map(ToString::to_string).collect();
    context.printer.show(&json!({"file": service.file, "text": text, "steps": steps}), |printer| {
        for step in &steps {
            printer.note(format!("Would {step}"));
        }
        printer.note(format!("Nothing was changed. Content of {}:", service.file.display()));
        printer.line(text.trim_end());
    })
}

fn print_installed(context: &Context<'_>, service: &Service, plan: &[Step]) -> Result<u8, Error> {
    let steps: Vec<String> = plan.iter().map(ToString::to_string).collect();
    let value = json!({"unit": service.unit(), "file": service.file, "steps": steps, "starts": start_event()});
    context.printer.show(&value, |printer| {
        let state = if plan.is_empty() { "is already installed" } else { "is installed" };
        printer.line(format!("{} {state}, {}", service.unit(), service::start_description()));
        match control::status_of(&context.home) {
            Some(status) => printer.line(format!("  Leoflow runs at {}", status.url)),
            None => printer.advice("  start it now: leoflow service install --now"),
        }
        if service.definition.manager == Manager::Systemd && !service::lingers() {
            printer.line(
                "  systemd stops it when you log out; to start it at boot and keep it running: loginctl enable-linger",
            );
        }
    })
}

/// The event at which the service starts, for the JSON output.
fn start_event() -> &'static str {
    if service::lingers() { "boot" } else { "login" }
}

fn uninstall(context: &Context<'_>, now: Now, dry_run: DryRun) -> Result<u8, Error> {
    let Some(service) = service::installed(&context.home)? else {
        return context.printer.show(&json!({"removed": null, "stopped": false}), |printer| {
            printer.line("No service of this home is installed; nothing to do");
        });
    };
    let runs_as_service = service.main_pid().ok().flatten().is_some();
    if dry_run == DryRun::Yes {
        context.printer.note(format!("Would remove {}", service.file.display()));
        if now == Now::Yes && runs_as_service {
            context.printer.note("Would stop Leoflow, which runs as the service");
        }
        context.printer.note("Nothing was changed.");
        return Ok(0);
    }
    let _operation_lock = OperationLock::take(&context.home, "leoflow service uninstall")?;
    let stopped = now == Now::Yes && runs_as_service && instance::stop_running(&context.home)?;
    service::remove(&context.home)?;
    context.printer.show(&json!({"removed": service.file, "stopped": stopped}), |printer| {
        printer.line(format!("Removed the service {}; your data stays", service.unit()));
        if runs_as_service && !stopped {
            printer.advice("  Leoflow is still running; stop it with: leoflow lite stop");
        }
    })
}

fn status(context: &Context<'_>) -> Result<u8, Error> {
    let service = service::installed(&context.home)?.map_or_else(|| service_of_home(context), Ok)?;
    let (is_installed, is_current) = match service.file_state() {
        FileState::Ours { is_current } => (true, is_current),
        _ => (false, false),
    };
    // These are unknown when the service manager is not reachable.
    let is_enabled = is_installed && service.is_enabled().unwrap_or(false);
    let pid = if is_installed { service.main_pid().ok().flatten() } else { None };
    let manager_error = service.check_manager().err().map(|error| error.to_string());
    let value = json!({
        "unit": service.unit(), "file": service.file, "installed": is_installed, "current": is_current,
        "enabled": is_enabled, "pid": pid, "starts": is_enabled.then(start_event), "manager_error": manager_error,
    });
    context.printer.show(&value, |printer| {
        if let Some(manager_error) = &manager_error {
            printer.warning(manager_error);
        }
        if !is_installed {
            printer.line("Leoflow is not installed as a service");
            return printer.advice("  install it with: leoflow service install");
        }
        printer.line(format!("file      {}", service.file.display()));
        let start_event = if is_enabled { service::start_description() } else { "disabled" };
        printer.line(format!("service   {}, {start_event}", service.unit()));
        printer.line(format!("running   {}", pid.map_or_else(|| "no".to_owned(), |pid| format!("pid {pid}"))));
        if !is_current || !is_enabled {
            printer.advice("  the service is outdated or disabled; fix it with: leoflow service install");
        }
    })?;
    Ok(u8::from(!is_installed))
}
