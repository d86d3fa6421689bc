//! `leoflow migrate-db`, its status and its rollback; and the supervisor's one-shot migrator.

use super::later_migrations;
use crate::backup::automatic::{self, Automatic};
use crate::cli::args::{MigrateCommand, MigrateDb, Rollback};
use crate::commands::context::Context;
use crate::commands::newer_schema;
use crate::config;
use crate::error::Error;
use crate::home::lock::OperationLock;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::{Access, Credentials, Endpoint, install, provision};
use crate::protocol::child::Inheritance;
use crate::protocol::log;
use crate::recovery::claims;
use crate::recovery::datastore::Datastore;
use crate::recovery::refuse_beside_a_rollback;
use crate::schema::{self, Extent, State, classify, embedded, known};
use crate::upgrade::history;
use serde_json::json;
use tokio_postgres::Client;
use tracing::{info, warn};

pub async fn run(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    match &args.command {
        None if args.later => later(context).await,
        None if args.supervised => supervised(context, args).await,
        None if args.dry_run => status(context, true).await,
        None => migrate(context, args).await,
        Some(MigrateCommand::Status) => status(context, false).await,
        Some(MigrateCommand::Rollback(args)) => rollback(context, args).await,
    }
}

async fn migrate(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    refuse_beside_a_rollback(&context.home)?;
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db").await?;
    // An upgrade goes by the schema that it has begun with.
    let _operation = match datastore.runs_for_lite {
        true => Some(OperationLock::take(&context.home, "leoflow migrate-db").map_err(Error::from)?),
        false => None,
    };
    let (lock, mut work) = (datastore.connect().await?, datastore.connect().await?);
    let printer = context.printer;
    if !args.no_backup && is_pending(&work).await? {
        back_up(context, &datastore.access, "migration", printer).await?;
    }
    let mut report = |file: &str| {
        if !printer.json {
            printer.line(format!("applied: {file}"));
        }
    };
    let mut applied = schema::migrate(&lock, &mut work, known(), context.version, &mut report).await?;
    let back_up = async || match args.no_backup {
        true => Ok(()),
        false => back_up(context, &datastore.access, "migration", printer).await,
    };
    let (more, waiting) = later_migrations::apply(context, &datastore, back_up, &mut report).await?;
    applied.files.extend(more.files);
    applied.version = more.version;
    if printer.json {
        printer.json(&json!({"applied": applied.files, "database_version": applied.version, "waiting": waiting}))?;
    } else {
        later_migrations::show(context, &waiting);
        let count = applied.files.len();
        let plural = if count == 1 { "migration" } else { "migrations" };
        let is = if count == 0 { "is" } else { "is now" };
        printer.line(format!("{count} {plural} applied, schema {is} at version {:04}", applied.version));
    }
    Ok(0)
}

/// Into the log of the process.
struct LogReporter;

impl Reporter for LogReporter {
    fn report(&self, progress: Progress) {
        match progress {
            Progress::Note(text) => info!("{text}"),
            Progress::Warning(text) => warn!("{text}"),
            _ => {}
        }
    }
}

/// Asked for by the server, beside it. Holds nobody up: what it would have to wait for is tried again later.
async fn later(context: &Context<'_>) -> Result<u8, Error> {
    let _operation = OperationLock::take(&context.home, "leoflow migrate-db").map_err(Error::from)?;
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db").await?;
    let mut report = |file: &str| info!("applied: {file}");
    let back_up = async || back_up(context, &datastore.access, "migration", &LogReporter).await;
    let (applied, waiting) = later_migrations::apply(context, &datastore, back_up, &mut report).await?;
    context.printer.json(&json!({"applied": applied.files, "waiting": waiting}))?;
    Ok(0)
}

/// Started by the supervisor, between Postgres and the server. Its failure goes back whole.
async fn supervised(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    log::start("migrate", context.log_level());
    let notifier = Inheritance::take().map_err(Error::failed)?.notifier();
    let outcome = async {
        let endpoint = Endpoint::for_home(&context.home);
        let credentials = Credentials::require(&context.home)?;
        let connect = || connect_supervised(&endpoint, &credentials, args.database.as_deref());
        let mut work = connect().await?;
        // The usual start: nothing to do, one connection, one question.
        let state = schema::classify(known(), &schema::inspect(&work).await?);
        if let State::Current { version } = state {
            claims::take(&context.home, &work).await?;
            return Ok(version);
        }
        if !matches!(state, State::Fresh) {
            claims::take(&context.home, &work).await?;
        }
        if matches!(state, State::Pending { .. }) && !args.no_backup {
            let installation = install::installed(&context.home)
                .ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("leoflow setup"))?;
            let access = Access { endpoint: endpoint.clone(), credentials: credentials.clone(), installation };
            back_up(context, &access, "migration", &LogReporter).await?;
        }
        let lock = connect().await?;
        // Whoever upgrades has taken its backup, and reads these lines: docs/process-protocol.md.
        let is_read = args.no_backup;
        let mut report = |file: &str| if is_read { eprintln!("applied: {file}") } else { info!("applied: {file}") };
        let version = schema::migrate(&lock, &mut work, known(), context.version, &mut report).await?.version;
        claims::take(&context.home, &work).await?;
        Ok::<_, Error>(version)
    };
    match outcome.await {
        Ok(version) => {
            notifier.schema(version);
            Ok(0)
        }
        Err(error) => {
            let error = newer_schema::with_reader(&context.home, error);
            notifier.failure(&error.to_json());
            Err(error)
        }
    }
}

/// The application's database, made where it is missing; or another one, which is there.
async fn connect_supervised(
    endpoint: &Endpoint,
    credentials: &Credentials,
    database: Option<&str>,
) -> Result<Client, Error> {
    let Some(database) = database else { return Ok(provision::connect(endpoint, credentials).await?) };
    let mut config = credentials.application(endpoint);
    Ok(endpoint.connect(config.dbname(database)).await?)
}

async fn is_pending(client: &Client) -> Result<bool, Error> {
    let found = schema::inspect(client).await?;
    Ok(matches!(schema::classify(known(), &found), State::Pending { .. }))
}

/// Before anything is changed. Without a backup there is no migration, unless it is asked for.
async fn back_up(context: &Context<'_>, access: &Access, before: &str, reporter: &dyn Reporter) -> Result<(), Error> {
    let home = &context.home;
    let config = config::load(&home.config())?
        .ok_or_else(|| Error::failed("config.yaml is gone").hint("put it back from a backup"))?
        .config;
    let without = match before {
        "rollback" => "leoflow migrate-db rollback VERSION --no-backup",
        _ => "leoflow migrate-db --no-backup",
    };
    let pinned = history::ways_back(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let with = Automatic { home, access, config: &config, version: context.version, pinned: &pinned, reporter };
    match automatic::before(before, &with).await {
        Ok(Some(made)) => {
            reporter.report(Progress::Note(format!("backed up before the {before}: {}", made.path.display())));
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => {
            let cause = Error::from(error);
            let base = Error {
                message: format!(
                    "nothing was changed, because the backup before the {before} failed: {}",
                    cause.message
                ),
                ..cause
            };
            Err(base.hint(format!("to go on without a backup: {without}")))
        }
    }
}

async fn status(context: &Context<'_>, dry_run: bool) -> Result<u8, Error> {
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db status").await?;
    let client: Client = datastore.connect().await?;
    let found = schema::inspect(&client).await?;
    let state = schema::classify(known(), &found);
    if dry_run && let Some(error) = schema::refusal(&state) {
        return Err(error.into());
    }
    let (database, binary) = (classify::database_version(&found), embedded::newest(known()));
    let pending: Vec<&str> = match &state {
        State::Pending { versions, .. } => {
            known().iter().filter(|known| versions.contains(&known.version)).map(|known| known.file.as_str()).collect()
        }
        State::Fresh => known().iter().map(|known| known.file.as_str()).collect(),
        _ => Vec::new(),
    };
    let waiting = later_migrations::waiting(context, &datastore).await?;
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({
            "database_version": database,
            "binary_version": binary,
            "pending": pending,
            "state": state.name(),
            "waiting": waiting,
        }))?;
        return Ok(0);
    }
    for file in &pending {
        printer.line(format!("pending: {file}"));
    }
    later_migrations::show(context, &waiting);
    if !dry_run {
        printer.line(format!("{}: database at version {database:04}, binary knows {binary:04}", state.name()));
        if let Some(error) = schema::refusal(&state) {
            printer.note(error.to_string());
        }
    } else if pending.is_empty() {
        printer.line(format!("0 migrations to apply, schema is at version {database:04}"));
    }
    Ok(0)
}

async fn rollback(context: &Context<'_>, args: &Rollback) -> Result<u8, Error> {
    let extent = match (args.version, args.to) {
        (Some(version), _) => Extent::Newest(version),
        (None, Some(version)) if version >= 0 => Extent::DownTo(version),
        _ => return Err(Error::usage("a version is a whole number from 0")),
    };
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db rollback").await?;
    if datastore.runs_for_lite {
        return Err(Error::refused("Leoflow is running on this schema").hint("leoflow lite stop, then try again"));
    }
    let (lock, mut work) = (datastore.connect().await?, datastore.connect().await?);
    let steps = schema::to_undo(&work, extent).await?;
    for step in &steps {
        context.printer.note(format!("would undo {step}, with all that its tables and columns hold"));
    }
    if !context.confirm("Undo this?", args.yes)? {
        context.printer.note("nothing was changed");
        return Ok(1);
    }
    let printer = context.printer;
    if !args.no_backup {
        back_up(context, &datastore.access, "rollback", printer).await?;
    }
    let mut report = |label: &str| {
        if !printer.json {
            printer.line(format!("rolled back: {label}.sql"));
        }
    };
    let done = schema::rollback(&lock, &mut work, extent, &mut report).await?;
    if printer.json {
        printer.json(&json!({"rolled_back": done.undone, "database_version": done.version}))?;
    } else {
        let count = done.undone.len();
        let plural = if count == 1 { "migration" } else { "migrations" };
        printer.line(format!("{count} {plural} rolled back, schema is now at version {:04}", done.version));
    }
    Ok(0)
}
