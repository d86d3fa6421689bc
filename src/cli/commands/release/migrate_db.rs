//! `leoflow migrate-db`, its status and rollback, and the migrator of the supervisor and of upgrades.

use super::{later_migrations, packaged};
use crate::commands::newer_schema;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::claims;
use crate::recovery::datastore::Datastore;
use crate::recovery::refuse_during_rollback;
use clap::{Args, Subcommand};
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::child::Inheritance;
use leoflow_base::protocol::log;
use leoflow_lifecycle::backup::create::automatic;
use leoflow_lifecycle::upgrade::{self, MigrationAtStart};
use leoflow_postgres::cluster::provision;
use leoflow_postgres::schema::{self, EmbeddedMigration, Extent, State, embedded, known};
use leoflow_postgres::{Access, Credentials, Endpoint, install};
use serde_json::json;
use std::path::PathBuf;
use tokio_postgres::Client;
use tracing::{info, warn};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow migrate-db               apply pending migrations\n  leoflow migrate-db status        compare the database with this release\n  \
                  leoflow migrate-db rollback 2    undo version 2, the newest"
)]
pub struct MigrateDb {
    /// Print the migrations that would be applied and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not create a backup first
    #[arg(long)]
    pub no_backup: bool,
    /// Started by the supervisor or by an upgrade
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// With --supervised: the database to migrate, for a rehearsal [default: the instance's own]
    #[arg(long, hide = true)]
    pub database: Option<String>,
    /// Started by the server: apply the postdeploy and contract migrations that may run now
    #[arg(long, hide = true)]
    pub later: bool,
    #[command(subcommand)]
    pub command: Option<MigrateCommand>,
}

#[derive(Subcommand, Debug)]
pub enum MigrateCommand {
    /// Show the schema versions of the database and of this release, and pending migrations
    #[command(after_help = "Example:\n  leoflow migrate-db status --json")]
    Status,
    /// Undo the newest migration with its own rollback SQL
    #[command(
        after_help = "Examples:\n  leoflow migrate-db rollback 2         undo version 2, which must be the newest\n  \
                            leoflow migrate-db rollback --to 1    undo every version above 1"
    )]
    Rollback(Rollback),
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("extent").required(true).args(["version", "to"]))]
pub struct Rollback {
    /// The version to undo; it must be the newest
    #[arg(value_name = "VERSION")]
    pub version: Option<i64>,
    /// Undo every version above this one, newest first
    #[arg(long, value_name = "VERSION")]
    pub to: Option<i64>,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// Do not create a backup first
    #[arg(long)]
    pub no_backup: bool,
}

pub async fn run(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    match &args.command {
        None if args.later => apply_deferred(context).await,
        None if args.supervised => supervised(context, args).await,
        None if args.dry_run => status(context, true).await,
        None => migrate(context, args).await,
        Some(MigrateCommand::Status) => status(context, false).await,
        Some(MigrateCommand::Rollback(args)) => rollback(context, args).await,
    }
}

async fn migrate(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    refuse_during_rollback(&context.home)?;
    packaged::refuse_newer(context)?;
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db").await?;
    // The lock keeps upgrades out, which rely on the schema version that they started with.
    let _operation_lock = match datastore.is_of_running_instance {
        true => Some(OperationLock::take(&context.home, "leoflow migrate-db").map_err(Error::from)?),
        false => None,
    };
    let (lock_client, mut client) = (datastore.connect().await?, datastore.connect().await?);
    let printer = context.printer;
    let state = schema::classify(known(), &schema::inspect(&client).await?);
    let pending = Pending::of(&client, &state).await?;
    let backup = match pending.is_some() && !args.no_backup {
        true => back_up(context, &datastore.access, "migration", printer).await?,
        false => None,
    };
    let mut report = |file: &str| {
        if !printer.json {
            printer.line(format!("applied: {file}"));
        }
    };
    let mut applied = schema::migrate(&lock_client, &mut client, known(), context.version, &mut report).await?;
    if let Some(pending) = pending {
        pending.record_applied(context, applied.version, backup)?;
    }
    let back_up_unless_skipped = async || match args.no_backup {
        true => Ok(()),
        false => back_up(context, &datastore.access, "migration", printer).await.map(drop),
    };
    let (later_applied, waiting) =
        later_migrations::apply(context, &datastore, back_up_unless_skipped, &mut report).await?;
    applied.files.extend(later_applied.files);
    applied.version = later_applied.version;
    if printer.json {
        printer.json(&json!({"applied": applied.files, "database_version": applied.version, "waiting": waiting}))?;
    } else {
        later_migrations::show(context, &waiting);
        let count = applied.files.len();
        let plural = if count == 1 { "migration" } else { "migrations" };
        let verb = if count == 0 { "is" } else { "is now" };
        printer.line(format!("{count} {plural} applied, schema {verb} at version {:04}", applied.version));
    }
    Ok(0)
}

/// Reports progress to the process's log.
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

/// Runs the deferred (postdeploy and contract) migrations. The running server starts this in a separate process. Fails
/// instead of waiting for locks; the server tries again.
async fn apply_deferred(context: &Context<'_>) -> Result<u8, Error> {
    let _operation_lock = OperationLock::take(&context.home, "leoflow migrate-db").map_err(Error::from)?;
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db").await?;
    let mut report = |file: &str| info!("applied: {file}");
    let create_backup = async || back_up(context, &datastore.access, "migration", &LogReporter).await.map(drop);
    let (applied, waiting) = later_migrations::apply(context, &datastore, create_backup, &mut report).await?;
    context.printer.json(&json!({"applied": applied.files, "waiting": waiting}))?;
    Ok(0)
}

/// Runs as the migrator of the supervisor, after Postgres has started and before the server starts, or of an upgrade.
/// Sends its error to the supervisor as JSON.
async fn supervised(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    log::start("migrate", context.log_level());
    let notifier = Inheritance::take().map_err(Error::failed)?.notifier();
    let outcome = async {
        let endpoint = Endpoint::for_home(&context.home);
        let credentials = Credentials::require(&context.home)?;
        let connect = || connect_supervised(&context.home, &endpoint, &credentials, args.database.as_deref());
        let mut client = connect().await?;
        // Usually nothing is pending. One connection and one query are enough to find that out.
        let state = schema::classify(known(), &schema::inspect(&client).await?);
        if let State::Current { version } = state {
            claims::take(&context.home, &client).await?;
            return Ok(version);
        }
        // A fresh database has no table for the claim yet.
        if !matches!(state, State::Fresh) {
            claims::take(&context.home, &client).await?;
        }
        // An upgrade, which passes --no-backup, records itself.
        let pending = if args.no_backup { None } else { Pending::of(&client, &state).await? };
        let mut backup = None;
        if pending.is_some() {
            let installation = install::installed(&context.home)
                .ok_or_else(|| Error::failed("PostgreSQL's program files are missing").hint("leoflow setup"))?;
            let access = Access { endpoint: endpoint.clone(), credentials: credentials.clone(), installation };
            backup = back_up(context, &access, "migration", &LogReporter).await?;
        }
        let lock_client = connect().await?;
        // An upgrade passes --no-backup, because it has created its own, and parses these lines:
        // docs/reference/process-protocol.md.
        let is_parsed = args.no_backup;
        let mut report = |file: &str| if is_parsed { eprintln!("applied: {file}") } else { info!("applied: {file}") };
        let version = schema::migrate(&lock_client, &mut client, known(), context.version, &mut report).await?.version;
        if let Some(pending) = pending {
            pending.record_applied(context, version, backup)?;
        }
        claims::take(&context.home, &client).await?;
        Ok::<_, Error>(version)
    };
    match outcome.await {
        Ok(version) => {
            notifier.schema(version);
            Ok(0)
        }
        Err(error) => {
            let error = newer_schema::with_hint_to_newer_release(&context.home, error);
            notifier.failure(&error.to_json());
            Err(error)
        }
    }
}

/// Connects to `database`, which must exist; for `None`, to the application's database, which is created if missing.
async fn connect_supervised(
    home: &Home,
    endpoint: &Endpoint,
    credentials: &Credentials,
    database: Option<&str>,
) -> Result<Client, Error> {
    let Some(database) = database else { return Ok(provision::connect_in(home, endpoint, credentials).await?) };
    let mut config = credentials.application(endpoint);
    Ok(endpoint.connect(config.dbname(database)).await?)
}

/// A database with pending migrations that no upgrade applies.
struct Pending {
    schema: i64,
    /// The release that applied the newest migration.
    release: Option<String>,
}

impl Pending {
    /// Returns `None` when no migration is pending, or when the database is new.
    async fn of(client: &Client, state: &State) -> Result<Option<Self>, Error> {
        match state {
            State::Pending { from, .. } => {
                Ok(Some(Self { schema: *from, release: schema::newest_release(client).await? }))
            }
            _ => Ok(None),
        }
    }

    /// Records the migrations as an upgrade to this release, which can be rolled back.
    fn record_applied(self, context: &Context<'_>, version: i64, backup: Option<PathBuf>) -> Result<(), Error> {
        let schema = (self.schema, version);
        let applied = MigrationAtStart { ledger_release: self.release, own_version: context.version, schema, backup };
        Ok(applied.record(&context.home)?)
    }
}

/// Creates a backup before a migration or rollback; `None` if there is no data to back up. The error says that the
/// operation did not run, so the caller must return it and not run the operation.
async fn back_up(
    context: &Context<'_>,
    access: &Access,
    operation: &str,
    reporter: &dyn Reporter,
) -> Result<Option<PathBuf>, Error> {
    let home = &context.home;
    let config = config::load(&home.config())?
        .ok_or_else(|| Error::failed("config.yaml is missing").hint("restore it from a backup"))?
        .config;
    let skip_command = match operation {
        "rollback" => "leoflow migrate-db rollback VERSION --no-backup",
        _ => "leoflow migrate-db --no-backup",
    };
    let parameters = upgrade::automatic_backup(home, access, &config, context.version, reporter)?;
    match automatic::before_change(operation, &parameters).await {
        Ok(Some(created)) => {
            let note = format!("Created a backup before the {operation}: {}", created.path.display());
            reporter.report(Progress::Note(note));
            Ok(Some(created.path))
        }
        Ok(None) => Ok(None),
        Err(error) => {
            let cause = Error::from(error);
            let base = Error {
                message: format!("the {operation} did not run, because the backup before it failed: {}", cause.message),
                ..cause
            };
            Err(base.hint(format!("to continue without a backup: {skip_command}")))
        }
    }
}

async fn status(context: &Context<'_>, dry_run: bool) -> Result<u8, Error> {
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db status").await?;
    let client: Client = datastore.connect().await?;
    let schema_facts = schema::inspect(&client).await?;
    let state = schema::classify(known(), &schema_facts);
    if dry_run && let Some(error) = schema::refusal(&state) {
        return Err(error.into());
    }
    let (database, binary) = (schema::database_version(&schema_facts), embedded::newest(known()));
    let pending: Vec<&str> = match &state {
        State::Pending { versions, .. } => {
            let is_listed = |migration: &&EmbeddedMigration| versions.contains(&migration.version);
            known().iter().filter(is_listed).map(|migration| migration.file.as_str()).collect()
        }
        State::Fresh => known().iter().map(|migration| migration.file.as_str()).collect(),
        _ => Vec::new(),
    };
    let waiting = later_migrations::waiting(context, &client).await?;
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
        printer.line(format!(
            "{}: the database is at schema version {database:04}, this release knows up to {binary:04}",
            state.name()
        ));
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
        (Some(version), _) => Extent::OnlyNewest(version),
        (None, Some(version)) if version >= 0 => Extent::DownTo(version),
        _ => return Err(Error::usage("a version is a whole number, 0 or greater")),
    };
    let datastore = Datastore::open(&context.recovery(), "leoflow migrate-db rollback").await?;
    if datastore.is_of_running_instance {
        return Err(Error::refused("cannot roll back the schema while Leoflow is running")
            .hint("stop it with leoflow lite stop, then try again"));
    }
    let (lock_client, mut client) = (datastore.connect().await?, datastore.connect().await?);
    let steps = schema::to_undo(&client, extent).await?;
    for step in &steps {
        context.printer.note(format!("Would undo {step} and drop all data in its tables and columns"));
    }
    if !context.confirm("Undo these migrations?", args.yes.into())? {
        context.printer.note(Context::DECLINED);
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
    let rolled_back = schema::rollback(&lock_client, &mut client, extent, &mut report).await?;
    if printer.json {
        printer.json(&json!({"rolled_back": rolled_back.undone, "database_version": rolled_back.version}))?;
    } else {
        let count = rolled_back.undone.len();
        let plural = if count == 1 { "migration" } else { "migrations" };
        printer.line(format!("{count} {plural} rolled back, schema is now at version {:04}", rolled_back.version));
    }
    Ok(0)
}
