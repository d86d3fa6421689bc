//! `leoflow lite move-datastore`.

use super::current_state::refuse_in_terminal;
use crate::commands::lite::restart::WasRunning;
use crate::commands::lite::start_check::{self, Starter};
use crate::commands::lite::{datastore, stop};
use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::AfterUpgrade;
use crate::recovery::datastore::Datastore;
use crate::terminal::printer::{counted, human_size};
use clap::Args;
use leoflow_base::config::{self, DatastoreSetting};
use leoflow_base::home::lock::OperationLock;
use leoflow_base::protocol::control;
use leoflow_base::sys::fs::disk;
use leoflow_lifecycle::backup::relocation::{self, Relocation};
use leoflow_lifecycle::backup::restore::restore_dir;
use leoflow_lifecycle::upgrade::rollback::snapshot;
use leoflow_postgres::external::database_check;
use leoflow_postgres::{databases, location};
use serde_json::json;

#[derive(Args, Debug)]
pub struct MoveDatastore {
    /// The target: managed, docker, postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME that holds
    /// such a URL
    #[arg(long, value_name = "WHERE")]
    pub to: String,
    /// Check both datastores, print what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
}

const COMMAND: &str = "leoflow lite move-datastore";

pub async fn run(context: &Context<'_>, args: &MoveDatastore) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let to = datastore::parse(&args.to, "--to")?;
    if args.dry_run {
        context.recovery().refuse_interrupted()?;
    } else {
        context.recovery().finish_first(COMMAND).await?;
    }
    crate::recovery::datastore::check(home)?;
    let relocation = plan(context, &to).await?;
    refuse_in_terminal(context)?;
    let operation_lock = OperationLock::take(home, COMMAND)?;
    if !relocation.is_same() {
        check_disk_space(context).await?;
    }
    print_plan(context, &relocation);
    if args.dry_run {
        printer.note("Nothing was changed.");
        if printer.json {
            printer.json(
                &json!({"dry_run": true, "from": relocation.from_description(), "to": relocation.to_description()}),
            )?;
        }
        return Ok(0);
    }
    let configured = context.config()?.map(|loaded| loaded.config);
    if !context.confirm_by_name("Move your data?", config::instance_name(configured.as_ref()), args.yes.into())? {
        return Err(Error::failed(Context::DECLINED));
    }
    let was_running = control::status_of(home).map(|_| WasRunning::of(context));
    if let Some(was_running) = was_running {
        packaged::refuse_newer(context)?;
        start_check::run(context, Starter::ThisCommand)?;
        was_running.check_address(context)?;
    }
    stop::stop_with_tasks(context)?;
    let outcome = relocate_data(context, &relocation).await;
    drop(operation_lock);
    let restarted = was_running.map(|was_running| was_running.restart(context));
    print_result(context, &relocation, outcome?, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

/// Plans the move, or only a change of the address if both addresses lead to the same database.
async fn plan(context: &Context<'_>, to: &DatastoreSetting) -> Result<Relocation, Error> {
    let home = &context.home;
    refuse_same(context, to)?;
    datastore::require(home, to, context.printer).await?;
    Ok(match is_same_database(context, to).await? {
        true => Relocation::plan_address(home, to)?,
        false => Relocation::plan(home, to)?,
    })
}

fn print_result(context: &Context<'_>, relocation: &Relocation, rows: i64, is_running: bool) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        let kept = (!relocation.is_same()).then(|| relocation.old_location());
        let to = relocation.to_description();
        return printer.json(&json!({"to": to, "rows": rows, "kept": kept, "running": is_running}));
    }
    if relocation.is_same() {
        printer.line(format!("Your data was not moved; it is now accessed as {}", relocation.to_description()));
    } else {
        let rows = counted(rows, "row");
        printer.line(format!("Moved your data to {}: {rows}, counted on both sides", relocation.to_description()));
        printer.line(format!("  the old datastore is kept: {}", relocation.old_location()));
    }
    Ok(())
}

/// Moves the data and returns the number of rows, or only changes the address and returns 0.
async fn relocate_data(context: &Context<'_>, relocation: &Relocation) -> Result<i64, Error> {
    let (home, reporter) = (&context.home, context.printer);
    if relocation.is_same() {
        let _home_lock = context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await?;
        return Ok(relocation::readdress(home, relocation, reporter).await.map(|()| 0)?);
    }
    let opened = Datastore::open(&context.recovery(), COMMAND).await?;
    if opened.is_of_running_instance {
        return Err(Error::failed("Leoflow was started in the meantime; nothing was changed")
            .hint("run the same command again"));
    }
    drop(opened.connect().await?);
    let (access, server) = opened.into_parts();
    let (server, _home_lock) = server.unzip();
    let rows = relocation::relocate(home, (&access, server), relocation, reporter).await?;
    // Upgrade snapshots are in the old datastore.
    snapshot::forget_all(home).map_err(|error| Error::io("write", &home.upgrade(), &error))?;
    Ok(rows)
}

/// Refuses a move to the current datastore; another password or address of the same datastore is allowed. The home's
/// record decides where the data is, not config.yaml, which may have been edited.
fn refuse_same(context: &Context<'_>, to: &DatastoreSetting) -> Result<(), Error> {
    let home = &context.home;
    let recorded = location::recorded(home)?;
    let is_same = match (recorded.as_ref().map(|recorded_location| recorded_location.kind), to) {
        (None, DatastoreSetting::Managed) | (Some(location::Kind::Docker), DatastoreSetting::Docker) => true,
        (Some(location::Kind::External), _) => *to == location::configured(home)? && location::is_configured(home)?,
        _ => false,
    };
    if !is_same {
        return Ok(());
    }
    let description =
        recorded.map_or("the datastore under the home".to_owned(), |recorded_location| recorded_location.display_text);
    let refused = Error::refused(format!("the data of this home is already in {description}"));
    Err(match location::is_configured(home) {
        Ok(true) => refused.hint("leoflow lite status"),
        _ => refused.hint(format!("restore this line in config.yaml: datastore: {to}")),
    })
}

/// True when the recorded and the requested URL lead to the same database. If the recorded one cannot be reached, the
/// requested database counts as the same if it contains this home's claim and the data was not moved away from it.
async fn is_same_database(context: &Context<'_>, to: &DatastoreSetting) -> Result<bool, Error> {
    let Some(recorded_location) = location::recorded(&context.home)?
        .filter(|recorded_location| recorded_location.kind == location::Kind::External)
    else {
        return Ok(false);
    };
    let Some(to) = to.external().map_err(location::LocationError::Url)? else { return Ok(false) };
    if recorded_location.is_at(&to) {
        return Ok(true);
    }
    if let Ok(from) = location::external(&context.home)
        && let Ok(is_same) = database_check::are_the_same(&from, &to).await
    {
        return Ok(is_same);
    }
    let claim = database_check::read_info(&to).await?.claim;
    Ok(claim.is_some_and(|claim| claim.home_id == recorded_location.home_id && claim.moved_to.is_none()))
}

/// Checks the disk space of the home: the dump is written to this machine's disk, where the new cluster may be, too.
async fn check_disk_space(context: &Context<'_>) -> Result<(), Error> {
    let opened = Datastore::open(&context.recovery(), COMMAND).await?;
    let client = opened.connect().await?;
    let bytes = databases::size(&client, None).await?;
    let needed = bytes.saturating_mul(2).saturating_add(MARGIN_BYTES);
    let root = context.home.root();
    let free = disk::free_bytes(root).map_err(|error| Error::io("read", root, &error))?;
    match free < needed {
        true => Err(Error::refused(format!(
            "not enough disk space in {}: {} needed, {} free",
            root.display(),
            human_size(needed),
            human_size(free)
        ))
        .hint("nothing was changed; free some space, then run the same command again")),
        false => Ok(()),
    }
}

/// Additional bytes for a new cluster and the write-ahead log.
const MARGIN_BYTES: u64 = 256 * 1024 * 1024;

fn print_plan(context: &Context<'_>, relocation: &Relocation) {
    let printer = context.printer;
    printer.note(format!("from  {}", relocation.from_description()));
    printer.note(format!("to    {}", relocation.to_description()));
    if relocation.is_same() {
        return printer.note("Both lead to the same database, so nothing is copied. A running Leoflow is restarted.");
    }
    printer.note("A running Leoflow is stopped and started again. The old datastore is kept unchanged.");
    if let Ok(Some(_)) = restore_dir::retained(&context.home) {
        printer.warning(
            "the data that the last restore replaced stays in the old datastore; `restore --undo` will no longer work",
        );
    }
}
