//! `leoflow lite`: sets up what is missing, then supervises until it is stopped.

use super::port::ListenAddress;
use super::stop;
use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::report::{PipeSink, Ready, Report, Sink};
use clap::Args;
use leoflow_base::config::{self, Config, Loaded, running_settings};
use leoflow_base::counted::counted;
use leoflow_base::home::lock::{self, HomeLock};
use leoflow_base::home::progress::Progress;
use leoflow_base::home::{absolute_workspace, check_workspace, shared};
use leoflow_base::protocol::child::SERVICE;
use leoflow_base::protocol::log;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::{replace, stdio};
use leoflow_base::sys::{clock, env_vars};
use leoflow_lifecycle::operation::OperationContext;
use leoflow_lifecycle::operation::instance::ended_tasks;
use leoflow_lifecycle::operation::open::AfterUpgrade;
use leoflow_lifecycle::operation::set_up;
use leoflow_lifecycle::setup::{self, Request};
use leoflow_lifecycle::upgrade::rollback::expire;
use leoflow_postgres::{Access, Credentials, Endpoint, PgError, install};
use leoflow_processes::agent;
use leoflow_processes::supervisor::instance::{Instance, own_program};
use leoflow_processes::supervisor::{self, Identity, Inherited, Notice, Supervisor, SupervisorError};
use leoflow_python::settings_without_effect;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

#[derive(Args, Debug, Clone, Default)]
pub struct LiteRun {
    /// The TCP port for this run; the first start saves it [default: the one in config.yaml, or 8088]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The folder with your projects [default: the one in config.yaml, or ~/leoflow]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Started by `lite start`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub report_to_stdout: bool,
    /// Started by a supervisor of another version that this process replaces
    #[arg(long, hide = true)]
    pub take_over: bool,
}

pub async fn run(context: &Context<'_>, args: &LiteRun) -> Result<u8, Error> {
    if !args.report_to_stdout {
        let outcome = run_with(context, args, context.printer).await;
        return outcome.map(|()| 0).inspect_err(|error| write_service_failure(context, error));
    }
    let outcome = run_with(context, args, &PipeSink).await;
    if let Err(error) = &outcome {
        PipeSink.send(&Report::Failed(error.clone()));
    }
    outcome.map(|()| 0)
}

/// Runs the instance until it is stopped; `sink` receives its reports.
async fn run_with(context: &Context<'_>, args: &LiteRun, sink: &dyn Sink) -> Result<(), Error> {
    if args.take_over {
        return match take_over(context, sink).await {
            Ok(()) => Ok(()),
            Err(TakeOverError::Ended(error)) => Err(error),
            Err(TakeOverError::NotBegun(error)) => Err(start_fresh(context, sink, error)),
        };
    }
    let started = Instant::now();
    context.operation().refuse_half_purged()?;
    let (loaded, address) = ListenAddress::choose(context, args.port)?;
    let workspace = args.workspace.as_deref().map(absolute_workspace).transpose()?;
    if let Some(workspace) = &workspace {
        check_workspace(&context.home, workspace)?;
    }
    let url = context.url(Some(&loaded.config), address.port);
    packaged::before_start(context, sink).await?;
    let (lock, tcp) = take_home(context, sink, &loaded, &address).await?;
    let request = Request { port: address.port_to_write, workspace, datastore: None, install_always: false };
    let password = set_up::apply(&context.home, context.version, &request, sink).await?;
    let config = load_written_config(context)?;
    warn_of_shared_workspace(context, sink, &config);
    clock::unknown_time_zone().into_iter().for_each(|text| sink.warn(text));
    warn_of_settings_without_effect(context, sink, &config);
    let instance = describe_instance(context, address.port)?;
    let is_detached = !sink.is_terminal() || is_service();
    let identity = describe_process(context, url.clone(), is_detached);
    let workspace = config.workspace.map(|path| path.display().to_string()).unwrap_or_default();
    let mut on_notice = |notice: Notice| match notice {
        Notice::Healthy => {
            let ready = Ready {
                url: url.clone(),
                admin_email: config.admin_email.clone(),
                admin_password: password.clone(),
                workspace: workspace.clone(),
                seconds: started.elapsed().as_secs_f64(),
                path_hint: context.path_hint(),
            };
            announce(context, sink, &ready);
        }
        other => report_notice(sink, other),
    };
    log::start("supervisor", identity.log_level);
    expire_snapshot(&instance);
    let ended = Supervisor::run(&instance, tcp, identity, lock.clone(), &mut on_notice).await;
    finish(context, sink, &instance, ended)
}

/// Locks the home for this process and binds the port.
async fn take_home(
    context: &Context<'_>,
    sink: &dyn Sink,
    loaded: &Loaded,
    address: &ListenAddress,
) -> Result<(Rc<HomeLock>, TcpListener), Error> {
    let home = &context.home;
    let url = context.url(Some(&loaded.config), address.port);
    // A new home is created only after the port was bound.
    let early_listener = if home.exists() { None } else { Some(address.bind(context)?) };
    home.create().map_err(Error::cannot("create", home.root()))?;
    let lock = Rc::new(
        OperationContext { reporter: sink, ..context.operation() }
            .take_home("leoflow lite", Some(&url), AfterUpgrade::ExecInstalled)
            .await?,
    );
    // Leftover processes of an earlier run may hold the port, so they are ended first.
    end_leftovers(context, sink)?;
    home.tidy().map_err(Error::cannot("tidy", home.root()))?;
    stop::note_requested_port(home, address.temporary_port)?;
    running_settings::record_host(home, address.host, loaded).map_err(Error::cannot("write", &home.host()))?;
    let tcp = match early_listener {
        Some(tcp) => tcp,
        None => address.bind_with_retries(context)?,
    };
    Ok((lock, tcp))
}

/// Continues in the process of a supervisor of another version, with its listeners, locks and children.
async fn take_over(context: &Context<'_>, sink: &dyn Sink) -> Result<(), TakeOverError> {
    let inherited = Inherited::take(&context.home).map_err(|error| {
        let text = "--take-over needs a running instance, and there is none";
        TakeOverError::NotBegun(Error::failed(text).cause(error).hint("leoflow lite"))
    })?;
    let _lock = inherited.resources.lock.clone();
    let port = inherited.handover.port;
    let configured = config::load(&context.home.config()).ok().flatten().map(|loaded| loaded.config);
    // The listener is inherited, so its address is not the one in a changed config.yaml.
    let url = lock::holder(&context.home).and_then(|holder| holder.url);
    let url = url.unwrap_or_else(|| context.url(configured.as_ref(), port));
    let identity = describe_process(context, url, inherited.handover.detached);
    let instance = describe_instance(context, port).map_err(TakeOverError::NotBegun)?;
    log::start("supervisor", identity.log_level);
    expire_snapshot(&instance);
    sink.note(format!("Leoflow now runs version {}", context.version));
    let ended = Supervisor::take_over(&instance, identity, inherited, &mut |notice| report_notice(sink, notice)).await;
    finish(context, sink, &instance, ended).map_err(TakeOverError::Ended)
}

enum TakeOverError {
    /// The running instance could not be taken over.
    NotBegun(Error),
    /// The instance was taken over and has failed since.
    Ended(Error),
}

/// Replaces this process by a normal start that inherits nothing, so that the old processes exit. Returns only on
/// failure.
fn start_fresh(context: &Context<'_>, sink: &dyn Sink, error: Error) -> Error {
    sink.warn(format!("{}; starting again", error.message));
    let arguments: Vec<_> =
        env_vars::arguments().into_iter().skip(1).filter(|argument| argument != "--take-over").collect();
    match env_vars::current_exe() {
        // The new program inherits no lock and no listener.
        Ok(program) => Error::io("run", &program, &replace::replace_self_bare(&program, "leoflow", &arguments)),
        Err(_) => error,
    }
    .hint(context.path_hint().unwrap_or_else(|| "leoflow lite start".to_owned()))
}

/// Runs the removal of an expired upgrade snapshot in the background.
fn expire_snapshot(instance: &Instance) {
    let Instance { endpoint, credentials, installation, home, .. } = instance.clone();
    tokio::task::spawn_local(expire::run(home, Access { endpoint, credentials, installation }));
}

/// The settings for the supervisor's processes.
fn describe_instance(context: &Context<'_>, port: u16) -> Result<Instance, Error> {
    let home = &context.home;
    let installation = install::installed(home)
        .ok_or_else(|| Error::failed("PostgreSQL's program files are missing").hint("run the same command again"))?;
    Ok(Instance {
        endpoint: Endpoint::for_home(home),
        credentials: Credentials::require(home)?,
        home: home.clone(),
        installation,
        port,
        verbose: context.printer.verbose,
        program: own_program(),
    })
}

/// What the supervisor reports about its own process.
fn describe_process(context: &Context<'_>, url: String, detached: bool) -> Identity {
    Identity {
        version: context.version.to_owned(),
        url,
        detached,
        log_level: context.log_level(),
        verbose: context.printer.verbose,
    }
}

/// Writes the error for the command that starts the service: the manager reports to it only that the start failed.
fn write_service_failure(context: &Context<'_>, error: &Error) {
    if is_service() {
        let _ = files::write_atomic(&context.home.service_failure(), error.to_json().as_bytes(), 0o600);
    }
}

fn report_notice(sink: &dyn Sink, notice: Notice) {
    sink.report(match notice {
        Notice::Trouble(reason) => Progress::Warning(reason),
        Notice::Healthy | Notice::Recovered => Progress::Note("Healthy again".to_owned()),
        Notice::Busy(text) => Progress::Started(text),
        Notice::Stopping => Progress::Started("Stopping".to_owned()),
    });
}

fn is_service() -> bool {
    env_vars::is_set(SERVICE)
}

/// Cleans up after the supervisor has ended, and converts its error.
fn finish(
    context: &Context<'_>,
    sink: &dyn Sink,
    instance: &Instance,
    ended: Result<(), SupervisorError>,
) -> Result<(), Error> {
    instance.endpoint.remove_socket_folder();
    if sink.is_terminal() && !is_service() {
        // A detached instance and a service leave this to the stopping command, because tasks outlive a restart.
        let (tasks, read_error) = agent::end_all(&context.home);
        if let Some(error) = read_error {
            sink.note(format!("failed to end all running tasks: {error}"));
        }
        if tasks > 0 {
            sink.note(ended_tasks(tasks));
        }
    }
    ended.map_err(|error| match error {
        // With an external datastore, nothing under the home can be the cause.
        SupervisorError::Start { unfit: true, reason, .. } if !instance.credentials.has_superuser() => {
            PgError::ExternalServer(reason).into()
        }
        other => Error::from(other),
    })?;
    sink.report(Progress::Finished("Leoflow has stopped; your data stays".to_owned()));
    Ok(())
}

/// Reports that the instance is ready. Marks a password as shown once it was printed on a terminal; `lite start` marks
/// a password that it received over the pipe.
fn announce(context: &Context<'_>, sink: &dyn Sink, ready: &Ready) {
    let was_printed = sink.ready(ready);
    if sink.is_terminal() {
        sink.note("Press Ctrl-C to stop.".to_owned());
        if was_printed
            && ready.admin_password.is_some()
            && let Err(error) = setup::mark_password_shown(&context.home)
        {
            sink.warn(error.to_string());
        }
    } else {
        // `lite start` has read its result; from here on, output goes only to the log.
        stdio::detach();
    }
}

/// Ends leftover processes of an earlier run and reports them.
fn end_leftovers(context: &Context<'_>, sink: &dyn Sink) -> Result<(), Error> {
    let ended = supervisor::end_leftovers(&context.home).map_err(|error| {
        Error::failed("failed to end the processes of an earlier run").cause(error).hint("leoflow doctor")
    })?;
    if !ended.is_empty() {
        sink.note(format!("Ended processes of an earlier run: {}", ended.join(", ")));
    }
    Ok(())
}

/// Warns about another instance of this user with the same workspace. Homes that were chosen with `--home` are unknown.
fn warn_of_shared_workspace(context: &Context<'_>, sink: &dyn Sink, config: &Config) {
    let others = shared::other_homes(&context.home);
    let Some(workspace) = &config.workspace else { return };
    if let Some(other) = setup::user_of_workspace(workspace, &others) {
        sink.warn(format!(
            "{} uses the workspace {} too, and schedules run in both; choose another one: leoflow config set \
             workspace DIR",
            other.root().display(),
            workspace.display(),
        ));
    }
}

/// Warns about settings of Airflow without effect.
fn warn_of_settings_without_effect(context: &Context<'_>, sink: &dyn Sink, config: &Config) {
    match settings_without_effect(&context.home, config.workspace.as_deref()).map(|found| found.len()) {
        Ok(0) => {}
        Ok(count) => {
            sink.warn(format!(
                "{} of Airflow without effect here: leoflow doctor lists them",
                counted(count, "setting")
            ));
        }
        Err(unread) => sink.warn(unread.to_string()),
    }
}

fn load_written_config(context: &Context<'_>) -> Result<Config, Error> {
    // Missing secrets are reported here at once, not by a child that fails to start.
    let loaded = config::load_with_secrets(&context.home.config())?;
    Ok(loaded.ok_or_else(|| Error::failed("config.yaml is missing").hint("leoflow setup"))?.config)
}
