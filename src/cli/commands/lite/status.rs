//! `leoflow lite status`.

use super::restart::changed_settings;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, human_size};
use clap::Args;
use leoflow_base::config::{self, DEFAULT_PORT, Overdue};
use leoflow_base::home::disk_kinds::{self, DiskKind};
use leoflow_base::home::upkeep::{self, Kind, Upkeep};
use leoflow_base::home::{Home, all_instances, journal, lock};
use leoflow_base::protocol::control::{self, StatusReply};
use leoflow_base::protocol::status::{BackupsStatus, InstanceState, InstanceStatus, ProcessStatus};
use leoflow_base::sys::fs::disk;
use leoflow_base::sys::fs::disk_usage::DiskUsage;
use leoflow_base::sys::fs::folders;
use leoflow_base::sys::process::environment_of;
use leoflow_lifecycle::backup::retain::catalog;
use leoflow_lifecycle::operation::open::rollback_record;
use leoflow_lifecycle::setup::{self, installed_version};
use leoflow_postgres::location;
use serde_json::{Value, json};
use std::panic::resume_unwind;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct LiteStatus {
    /// Show every instance of this user
    #[arg(long)]
    pub all: bool,
    /// Show the disk space that the instance takes
    #[arg(long, conflicts_with = "all")]
    pub disk: bool,
}

pub fn run(context: &Context<'_>, args: &LiteStatus) -> Result<u8, Error> {
    if args.all {
        return show_all(context);
    }
    if args.disk {
        return show_disk(context);
    }
    let status = current_status(context);
    context.printer.show(&status, |printer| show(context, printer, &status))?;
    Ok(u8::from(!status.is_well()))
}

/// Prints the disk space by kind.
fn show_disk(context: &Context<'_>) -> Result<u8, Error> {
    let kinds = disk_kinds::measure_kinds(&context.home, DISK_TIME);
    let total = disk_kinds::total(&kinds);
    let free = disk::free_bytes(context.home.root()).ok();
    context.printer.show(&json!({"kinds": kinds, "total": total, "free_bytes": free}), |printer| {
        let size = |usage: DiskUsage| {
            format!("{}{}", if usage.is_partial { "at least " } else { "" }, human_size(usage.bytes))
        };
        let row =
            |kind: &DiskKind| [kind.name.to_owned(), size(kind.usage), kind.command.unwrap_or_default().to_owned()];
        let free = free.map(|bytes| format!("{} free", human_size(bytes))).unwrap_or_default();
        let total = ["Total".to_owned(), size(total), free];
        printer.table(&["KIND", "SIZE", "COMMAND"], kinds.iter().map(row).chain([total]));
    })
}

/// Time limit for measuring the disk space.
const DISK_TIME: Duration = Duration::from_secs(20);

/// Printed instead of an empty list of instances.
pub(crate) const NO_INSTANCES: &str = "No instances below your home directory. Create one with `leoflow lite start`; one \
                                       that was chosen with --home is not listed.";

/// Prints a row per instance.
fn show_all(context: &Context<'_>) -> Result<u8, Error> {
    let (names, homes): (Vec<String>, Vec<Home>) = all_instances().into_iter().unzip();
    let statuses: Vec<(String, InstanceStatus)> = names.into_iter().zip(statuses_of_homes(context, homes)).collect();
    let entry = |(name, status): &(String, InstanceStatus)| json!({"name": name, "status": status});
    let entries: Vec<Value> = statuses.iter().map(entry).collect();
    context.printer.show(&json!({"instances": entries}), |printer| {
        if statuses.is_empty() {
            return printer.note(NO_INSTANCES);
        }
        let rows = statuses.iter().map(|(name, status)| instance_row(printer, name, status));
        printer.table(&["INSTANCE", "STATE", "URL", "VERSION", "UPTIME", "LAST BACKUP"], rows);
        for (name, status) in &statuses {
            let problems = status.backups.iter().flat_map(|backups| &backups.problems);
            problems.for_each(|problem| printer.warning(format!("{name}: {problem}")));
        }
    })?;
    let are_well = statuses.iter().all(|(_, status)| status.is_well());
    Ok(u8::from(statuses.is_empty() || !are_well))
}

fn instance_row(printer: &Printer, name: &str, status: &InstanceStatus) -> [String; 6] {
    let is_up = !status.processes.is_empty();
    let last_backup = status.backups.as_ref().and_then(|backups| backups.last_backup_at.as_deref());
    [
        name.to_owned(),
        status.state.to_string(),
        status.url.clone(),
        status.version.clone(),
        if is_up { format_duration(status.uptime_seconds) } else { "-".to_owned() },
        printer.time(last_backup),
    ]
}

/// The status of this context's home.
fn current_status(context: &Context<'_>) -> InstanceStatus {
    let mut status = status_of_home(context);
    if !status.processes.is_empty() {
        // Errors in the file are reported by the code that needs its values.
        status.needs_restart = changed_settings(context).unwrap_or_default().into_iter().map(str::to_owned).collect();
    }
    status
}

/// The status of each home, without `needs_restart`. Reads them at the same time, because a supervisor that does not
/// respond takes many seconds.
pub(crate) fn statuses_of_homes(context: &Context<'_>, homes: Vec<Home>) -> Vec<InstanceStatus> {
    let contexts: Vec<_> = homes.into_iter().map(|home| context.at(home)).collect();
    std::thread::scope(|scope| {
        // Where the system refuses a thread, this one reads the status.
        let start = |context| std::thread::Builder::new().spawn_scoped(scope, move || status_of_home(context)).ok();
        let threads: Vec<_> = contexts.iter().map(start).collect();
        let wait = |thread: ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        let status = |(context, thread): (_, Option<_>)| thread.map_or_else(|| status_of_home(context), wait);
        contexts.iter().zip(threads).map(status).collect()
    })
}

/// The status of a home, without `needs_restart`: it depends on this process's environment variables, which may not
/// apply to that home.
pub(crate) fn status_of_home(context: &Context<'_>) -> InstanceStatus {
    let mut status = match control::request_status(&context.home) {
        StatusReply::Status(status) => *status,
        StatusReply::NoAnswer => offline_status(context, true),
        StatusReply::NotListening => offline_status(context, false),
    };
    status.change = journal::change_under_way(&context.home);
    if status.change.as_ref().is_some_and(|change| change.has_changed) && status.state == InstanceState::Healthy {
        status.state = InstanceState::Upgrading;
    }
    status.backups = Some(backups(context, &status));
    status
}

/// The state of the backups.
fn backups(context: &Context<'_>, status: &InstanceStatus) -> BackupsStatus {
    // Opens no backup, because the status is read often.
    let upkeep = upkeep::read(&context.home);
    let overdue = find_overdue(context, upkeep.as_ref(), status);
    let mut problems = upkeep.as_ref().map(Upkeep::problems).unwrap_or_default();
    problems.extend(overdue.iter().map(ToString::to_string));
    problems.extend(
        folders::entries(&context.home.backups()).err().map(|error| format!("the backups cannot be read: {error}")),
    );
    let backup_failed = upkeep.as_ref().is_some_and(|upkeep| upkeep.backup.problem.is_some());
    BackupsStatus {
        last_backup_at: upkeep.as_ref().and_then(|upkeep| upkeep.backup.done_at).map(|time| time.to_string()),
        last_verified_at: catalog::last_test_restore(&context.home),
        problems,
        are_missing: backup_failed || overdue.iter().any(|entry| entry.kind == Kind::Backup),
    }
}

/// Backups and verifications that are overdue; none for a stopped instance, which makes no backups.
fn find_overdue(context: &Context<'_>, upkeep: Option<&Upkeep>, status: &InstanceStatus) -> Vec<Overdue> {
    if status.processes.is_empty() {
        return Vec::new();
    }
    // The server has the variables of the supervisor, which started it.
    let variables = environment_of(status.pid);
    let loaded = config::load_for_process(&context.home.config(), variables.as_ref()).ok().flatten();
    loaded.map(|loaded| setup::overdue(&loaded.config.backup, upkeep, status)).unwrap_or_default()
}

/// The status of an instance without a supervisor that responds, from its lock and files. `is_silent` tells whether
/// one has its socket open.
fn offline_status(context: &Context<'_>, is_silent: bool) -> InstanceStatus {
    let home = &context.home;
    let config = config::load_files(&home.config()).ok().flatten().map(|loaded| loaded.config);
    let port = config.as_ref().map_or(DEFAULT_PORT, |config| config.port);
    let holder = lock::holder(home);
    let is_locked = lock::is_held(home).unwrap_or(false);
    let (state, reason) = match &holder {
        _ if !is_locked => {
            let reason = match setup::is_set_up(home) {
                true => "not running; start it with `leoflow lite start`".to_owned(),
                false => format!("nothing is set up in {}; set it up with `leoflow lite start`", home.root().display()),
            };
            (InstanceState::Stopped, context.printer.for_home(&reason))
        }
        Some(holder) if holder.url.is_none() => {
            (InstanceState::Stopped, format!("`{}` (pid {}) is using the home", holder.command, holder.process.pid))
        }
        Some(holder) if is_silent => {
            (InstanceState::Degraded, format!("the supervisor, pid {}, does not respond", holder.process.pid))
        }
        Some(holder) => (InstanceState::Starting, format!("being set up by pid {}", holder.process.pid)),
        None => (InstanceState::Starting, "the home is in use".to_owned()),
    };
    InstanceStatus {
        state,
        version: installed_version(home).unwrap_or_else(|| context.version.to_owned()),
        url: holder
            .as_ref()
            .and_then(|holder| holder.url.clone())
            .unwrap_or_else(|| context.url(config.as_ref(), port)),
        home: home.root().display().to_string(),
        schema_version: None,
        uptime_seconds: 0,
        processes: Vec::new(),
        reason: Some(reason),
        detached: false,
        change: None,
        pid: holder.filter(|_| is_locked).map_or(0, |holder| holder.process.pid),
        backups: None,
        needs_restart: Vec::new(),
    }
}

fn show(context: &Context<'_>, printer: &Printer, status: &InstanceStatus) {
    let colour = match status.state {
        InstanceState::Healthy => "32;1",
        InstanceState::Starting | InstanceState::Degraded | InstanceState::Upgrading => "33;1",
        InstanceState::Damaged | InstanceState::Failed | InstanceState::Stopped => "31;1",
    };
    // The address of a home that is not set up may be that of another instance.
    if status.state != InstanceState::Stopped || setup::is_set_up(&context.home) {
        printer.line(format!("{} {}", printer.paint(colour, &status.state.to_string()), status.url));
    }
    if let Some(reason) = &status.reason {
        printer.line(reason);
    }
    if let Ok(Some(record)) = rollback_record(&context.home) {
        printer.advice(match record.is_under_way() {
            true => format!("a rollback to {} is in progress", record.to),
            false => format!("a rollback to {} was interrupted; finish it: leoflow rollback", record.to),
        });
    }
    if let Some(change) = &status.change {
        printer.line(change.to_string());
    }
    if status.processes.is_empty() {
        return show_backups(printer, status);
    }
    let schema = status.schema_version.map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    printer.line(format!("version {}, schema {schema}, up {}", status.version, format_duration(status.uptime_seconds)));
    if let Ok(Some(datastore_location)) = location::recorded(&context.home) {
        printer.line(format!("datastore {}", datastore_location.display_text));
    }
    printer.table(&["PROCESS", "STATE", "PID", "RESTARTS", "MEMORY"], status.processes.iter().map(process_row));
    show_backups(printer, status);
    if let Some(other) = setup::other_copy(&context.home) {
        printer.warning(other.warning(&context.home));
    }
    if !status.needs_restart.is_empty() {
        printer.warning(format!(
            "changed settings not yet in effect: {}; apply them with leoflow lite restart --if-needed",
            status.needs_restart.join(", ")
        ));
    }
}

fn show_backups(printer: &Printer, status: &InstanceStatus) {
    let Some(backups) = &status.backups else { return };
    if backups.last_backup_at.is_some() {
        let verified = match &backups.last_verified_at {
            Some(time) => format!("verified {}", printer.time(Some(time))),
            None => "never verified".to_owned(),
        };
        printer.line(format!("last backup {}, {verified}", printer.time(backups.last_backup_at.as_deref())));
    }
    backups.problems.iter().for_each(|problem| printer.warning(problem));
}

fn process_row(process: &ProcessStatus) -> [String; 5] {
    [
        process.name.clone(),
        process.state_text(),
        process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        process.restarts.to_string(),
        process.memory_text(),
    ]
}

fn format_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}
