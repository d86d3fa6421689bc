//! `leoflow lite`: set up what is missing, then supervise until told to stop.

use super::datastore;
use super::stop::{self, ended_tasks};
use crate::agent;
use crate::cli::args::LiteRun;
use crate::cli::report::{PipeSink, Ready, Report, Sink};
use crate::commands::context::Context;
use crate::config::{self, Config, DEFAULT_PORT, in_force};
use crate::error::Error;
use crate::home::progress::Progress;
use crate::home::{absolute_workspace, check_workspace, instances, lock};
use crate::postgres::acquire::Sources;
use crate::postgres::{Access, Credentials, Endpoint, PgError, install};
use crate::protocol::child::SERVICE;
use crate::protocol::log;
use crate::recovery::{AfterUpgrade, Recovery};
use crate::setup::{self, Plan, Wishes};
use crate::supervisor::instance::{Instance, own_program};
use crate::supervisor::{self, Identity, Inherited, Notice, Supervisor, SupervisorError};
use crate::sys::{env_vars, files, listener, ports, replace, stdio};
use crate::upgrade::expire;
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub async fn run(context: &Context<'_>, args: &LiteRun) -> Result<u8, Error> {
    if !args.report_to_stdout {
        let outcome = run_with(context, args, context.printer).await;
        return outcome.map(|()| 0).inspect_err(|error| note_failure(context, error));
    }
    let outcome = run_with(context, args, &PipeSink).await;
    if let Err(error) = &outcome {
        PipeSink.send(&Report::Failed(error.clone()));
    }
    outcome.map(|()| 0)
}

async fn run_with(context: &Context<'_>, args: &LiteRun, sink: &dyn Sink) -> Result<(), Error> {
    if args.take_over {
        let Err(error) = take_over(context, sink).await else { return Ok(()) };
        return match error {
            TakeOverError::Ended(error) => Err(error),
            TakeOverError::NotBegun(error) => Err(begin_anew(context, sink, error)),
        };
    }
    let started = Instant::now();
    let home = &context.home;
    context.recovery().refuse_half_purged()?;
    let loaded = context.config()?;
    // A new instance gets a port of its own, which it keeps.
    let own_port = if loaded.is_none() { Some(setup::own_port(home)) } else { None };
    let (is_first, loaded) = match loaded {
        Some(loaded) => (false, loaded),
        None => (true, config::load_first(&home.config())?),
    };
    // One that a variable says is as one that is asked for here.
    let of_variable = in_force::is_of_variable(&loaded, "port").then_some(loaded.config.port);
    let said = (!is_first || loaded.origins.contains_key("port")).then_some(loaded.config.port);
    let asked = args.port.or(of_variable);
    let (port, host) = (asked.or(said).or(own_port).unwrap_or(DEFAULT_PORT), loaded.config.host);
    let written = match is_first {
        true => args.port.or(own_port),
        false => config::read_file(&home.config())?.map(|loaded| loaded.config.port),
    };
    let url = context.url(Some(&loaded.config), port);
    if let Some(workspace) = args.workspace.as_deref() {
        check_workspace(home, &absolute_workspace(workspace)?)?;
    }
    // A home that is not there yet is only made once the port is ours.
    let early = if home.exists() { None } else { Some(bind(context, host, port)?) };
    home.create().map_err(|error| Error::io("create", home.root(), &error))?;
    let lock = Rc::new(
        Recovery { reporter: sink, ..context.recovery() }
            .take_home("leoflow lite", Some(&url), AfterUpgrade::HandOn)
            .await?,
    );
    // What an earlier run left may have the port, so it is ended first.
    end_leftovers(context, sink)?;
    home.tidy().map_err(|error| Error::io("tidy", home.root(), &error))?;
    stop::note_asked_port(home, asked.filter(|asked| Some(*asked) != written))?;
    in_force::note_host(home, host, &loaded).map_err(|error| Error::io("write", &home.host(), &error))?;
    let tcp = match early {
        Some(tcp) => tcp,
        None => bind_patiently(context, host, port)?,
    };

    let wishes = Wishes {
        port: args.port.or(own_port),
        workspace: args.workspace.as_deref().map(absolute_workspace).transpose()?,
        datastore: None,
        install_always: false,
    };
    let password = set_up(context, &wishes, sink).await?;
    let config = written_config(context)?;
    let instance = describe(context, port)?;
    let identity = Identity {
        version: context.version.to_owned(),
        url: url.clone(),
        detached: !sink.is_terminal() || is_service(),
        log_level: context.log_level(),
        verbose: context.printer.verbose,
    };
    let workspace = config.workspace.map(|path| path.display().to_string()).unwrap_or_default();
    let mut told = |notice: Notice| match notice {
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
        other => tell(sink, other),
    };
    log::start("supervisor", identity.log_level);
    expire_snapshot(&instance);
    let ended = Supervisor::run(&instance, tcp, identity, lock.clone(), &mut told).await;
    leave(context, sink, &instance, ended)
}

/// In the place of the supervisor of another version, in its process, with all that it had.
async fn take_over(context: &Context<'_>, sink: &dyn Sink) -> Result<(), TakeOverError> {
    let inherited = Inherited::take(&context.home).map_err(|error| {
        let text = "this takes the place of a running instance, and there is none";
        TakeOverError::NotBegun(Error::failed(text).cause(error).hint("leoflow lite"))
    })?;
    let _lock = inherited.lock.clone();
    let port = inherited.handover.port;
    let configured = config::load(&context.home.config()).ok().flatten().map(|loaded| loaded.config);
    let identity = Identity {
        version: context.version.to_owned(),
        // It serves where it did, whatever the file says by now.
        url: lock::holder(&context.home)
            .and_then(|holder| holder.url)
            .unwrap_or_else(|| context.url(configured.as_ref(), port)),
        detached: inherited.handover.detached,
        log_level: context.log_level(),
        verbose: context.printer.verbose,
    };
    let instance = describe(context, port).map_err(TakeOverError::NotBegun)?;
    log::start("supervisor", identity.log_level);
    expire_snapshot(&instance);
    sink.report(Progress::Note(format!("Leoflow is {} now", context.version)));
    let ended = Supervisor::take_over(&instance, identity, inherited, &mut |notice| tell(sink, notice)).await;
    leave(context, sink, &instance, ended).map_err(TakeOverError::Ended)
}

enum TakeOverError {
    /// What was there could not be taken over.
    NotBegun(Error),
    /// It was, and has come to its end.
    Ended(Error),
}

/// As a start would: with nothing of what was there before, whose processes leave. Comes back only when it cannot.
fn begin_anew(context: &Context<'_>, sink: &dyn Sink, error: Error) -> Error {
    sink.report(Progress::Warning(format!("{}; starting anew", error.message)));
    let arguments: Vec<_> = env_vars::arguments().into_iter().skip(1).filter(|one| one != "--take-over").collect();
    match env_vars::current_exe() {
        // With every lock and listener let go.
        Ok(program) => Error::io("run", &program, &replace::replace_self_bare(&program, "leoflow", &arguments)),
        Err(_) => error,
    }
    .hint(context.path_hint().unwrap_or_else(|| "leoflow lite start".to_owned()))
}

/// Beside everything else, as long as there is one.
fn expire_snapshot(instance: &Instance) {
    let Instance { endpoint, credentials, installation, home, .. } = instance.clone();
    tokio::task::spawn_local(expire::run(home, Access { endpoint, credentials, installation }));
}

fn describe(context: &Context<'_>, port: u16) -> Result<Instance, Error> {
    let home = &context.home;
    let installation = install::installed(home)
        .ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("run the same command again"))?;
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

/// For the command that has the service manager start it, which hears only that it did not.
fn note_failure(context: &Context<'_>, error: &Error) {
    if is_service() {
        let _ = files::write_atomic(&context.home.service_failure(), error.to_json().as_bytes(), 0o600);
    }
}

fn tell(sink: &dyn Sink, notice: Notice) {
    sink.report(match notice {
        Notice::Trouble(reason) => Progress::Warning(reason),
        Notice::Healthy | Notice::Recovered => Progress::Note("healthy again".to_owned()),
        Notice::Busy(text) => Progress::Started(text),
        Notice::Stopping => Progress::Started("Stopping".to_owned()),
    });
}

fn is_service() -> bool {
    env_vars::is_set(SERVICE)
}

fn leave(
    context: &Context<'_>,
    sink: &dyn Sink,
    instance: &Instance,
    ended: Result<(), SupervisorError>,
) -> Result<(), Error> {
    instance.endpoint.tidy();
    if sink.is_terminal() && !is_service() {
        // Detached, or by a service manager, it is the command that stops it that does this: a restart lets tasks go on.
        let (tasks, unread) = agent::end_all(&context.home);
        if let Some(error) = unread {
            sink.report(Progress::Note(format!("not all running tasks could be ended: {error}")));
        }
        if tasks > 0 {
            sink.report(Progress::Note(ended_tasks(tasks)));
        }
    }
    ended.map_err(|error| match error {
        // There is nothing under the home that could be another's.
        SupervisorError::Start { unfit: true, reason, .. } if !instance.credentials.has_superuser() => {
            PgError::Far(reason).into()
        }
        other => Error::from(other),
    })?;
    sink.report(Progress::Finished("Leoflow has stopped; your data stays".to_owned()));
    Ok(())
}

/// Says that it runs. A password that was shown on a terminal is not made anew; one that went over
/// the pipe is marked by whoever shows it.
fn announce(context: &Context<'_>, sink: &dyn Sink, ready: &Ready) {
    let seen = sink.ready(ready);
    if sink.is_terminal() {
        sink.report(Progress::Note("Ctrl-C stops it.".to_owned()));
        if seen
            && ready.admin_password.is_some()
            && let Err(error) = setup::mark_password_shown(&context.home)
        {
            sink.report(Progress::Warning(error.to_string()));
        }
    } else {
        // The terminal that waits has all it wanted; from here on there is only the log.
        stdio::detach();
    }
}

/// What of an earlier run is still there is ended, and the user told.
fn end_leftovers(context: &Context<'_>, sink: &dyn Sink) -> Result<(), Error> {
    let ended = supervisor::end_leftovers(&context.home).map_err(|error| {
        Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
    })?;
    if !ended.is_empty() {
        sink.report(Progress::Note(format!("ended what an earlier run left: {}", ended.join(", "))));
    }
    Ok(())
}

/// What setup would do now.
pub fn planned(context: &Context<'_>, wishes: &Wishes) -> Result<Plan, Error> {
    let configured = config::load(&context.home.config())?.and_then(|loaded| loaded.config.workspace);
    // Only a machine without a home directory has no workspace; then it has to be named.
    let workspace = match wishes.workspace.clone().or(configured) {
        Some(path) => path,
        None => instances::default_workspace(&context.home)?,
    };
    check_workspace(&context.home, &workspace)?;
    let facts = setup::gather(&context.home, context.version, &workspace, wishes.install_always)?;
    Ok(setup::plan(&facts, wishes)?)
}

/// Does what setup is missing. Returns a password that nobody has seen yet.
pub async fn set_up(context: &Context<'_>, wishes: &Wishes, sink: &dyn Sink) -> Result<Option<String>, Error> {
    let home = &context.home;
    let plan = planned(context, wishes)?;
    if plan.resumes {
        sink.report(Progress::Note("finishing the setup that was interrupted".to_owned()));
    }
    datastore::look(home, &plan, sink).await?;
    let applied = setup::apply(home, &plan, wishes, context.version, &Sources::from_environment(), sink).await?;
    match applied.password {
        Some(password) => Ok(Some(password)),
        None => Ok(setup::renew_unseen_password(home)?),
    }
}

/// The home is ours; another first start may have the port for as long as it takes to be refused.
fn bind_patiently(context: &Context<'_>, host: Ipv4Addr, port: u16) -> Result<TcpListener, Error> {
    for _ in 0..50 {
        match listener::bind_at(host, port) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && ours(port) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => break,
        }
    }
    bind(context, host, port)
}

/// Whether the port is another Leoflow's, or of somebody we may not look at.
fn ours(port: u16) -> bool {
    ports::listening_process(port).is_none_or(|(_, line)| line.contains("leoflow"))
}

fn bind(context: &Context<'_>, host: Ipv4Addr, port: u16) -> Result<TcpListener, Error> {
    listener::bind_at(host, port).map_err(|error| {
        // The one that has the port may be the instance of this very home.
        if let Some(holder) = other_holder(context) {
            return lock::LockError::Held { holder: Some(holder) }.into();
        }
        not_bound(host, port, &error)
    })
}

/// Why that is no place to serve at.
pub(in crate::commands) fn not_bound(host: Ipv4Addr, port: u16, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AddrNotAvailable {
        return Error::failed(format!("{host} is no address of this machine"))
            .hint("leoflow config set host 127.0.0.1");
    }
    let who = match ports::listening_process(port) {
        Some((pid, line)) => format!("port {port} is taken by `{}`, pid {pid}", first_words(&line)),
        None => format!("port {port} cannot be used: {error}"),
    };
    Error::failed(who).hint(format!("leoflow lite --port {}", port.checked_add(1).unwrap_or(DEFAULT_PORT)))
}

fn other_holder(context: &Context<'_>) -> Option<lock::Holder> {
    let own = std::process::id() as i32;
    lock::holder(&context.home).filter(|holder| holder.url.is_some() && holder.process.pid != own)
}

fn first_words(line: &str) -> String {
    if line.chars().count() <= 60 { line.to_owned() } else { line.chars().take(57).chain("...".chars()).collect() }
}

fn written_config(context: &Context<'_>) -> Result<Config, Error> {
    // Here it is told at once, and not by a child that does not start.
    let loaded = config::load_with_secrets(&context.home.config())?;
    Ok(loaded.ok_or_else(|| Error::failed("config.yaml is gone").hint("leoflow setup"))?.config)
}
