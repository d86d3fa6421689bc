//! `leoflow lite move-datastore`.

use super::restart::WasRunning;
use super::restore_present::refuse_beside_a_terminal;
use super::{datastore, stop};
use crate::backup::relocation::{self, Relocation};
use crate::backup::side;
use crate::cli::args::MoveDatastore;
use crate::commands::context::Context;
use crate::config::{self, DatastoreSetting};
use crate::error::Error;
use crate::home::lock::OperationLock;
use crate::postgres::{place, rights};
use crate::protocol::control;
use crate::recovery::AfterUpgrade;
use crate::recovery::datastore::Datastore;
use crate::sys::disk;
use crate::upgrade::snapshot;
use serde_json::json;

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
    refuse_same(context, &to)?;
    datastore::require(home, &to, printer).await?;
    let relocation = match leads_to_the_same(context, &to).await? {
        true => Relocation::plan_address(home, &to)?,
        false => Relocation::plan(home, &to)?,
    };
    refuse_beside_a_terminal(context)?;
    let alone = OperationLock::take(home, COMMAND)?;
    if !relocation.is_same() {
        check_room(context).await?;
    }
    tell_plan(context, &relocation);
    if args.dry_run {
        printer.note("Nothing was changed.");
        if printer.json {
            printer.json(&json!({"dry_run": true, "from": relocation.from_shown(), "to": relocation.to_shown()}))?;
        }
        return Ok(0);
    }
    let configured = context.config()?.map(|loaded| loaded.config);
    if !context.confirm_by_name("Move it?", config::instance_name(configured.as_ref()), args.yes)? {
        return Err(Error::failed("nothing was changed"));
    }
    let was_running = control::status_of(home).map(|_| WasRunning::of(context));
    stop::stop_whole(context)?;
    let moved = go(context, &relocation).await;
    drop(alone);
    let restarted = was_running.map(|was_running| was_running.restart(context));
    let rows = moved?;
    if printer.json {
        let runs = matches!(restarted, Some(Ok(())));
        let kept = (!relocation.is_same()).then(|| relocation.left_at());
        printer.json(&json!({"to": relocation.to_shown(), "rows": rows, "kept": kept, "running": runs}))?;
    } else if relocation.is_same() {
        printer.line(format!("Your data is where it was, and is reached as {} now", relocation.to_shown()));
    } else {
        printer.line(format!("Your data is in {} now: {rows} rows, counted on both sides", relocation.to_shown()));
        printer.line(format!("  the old one is kept: {}", relocation.left_at()));
    }
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

async fn go(context: &Context<'_>, relocation: &Relocation) -> Result<i64, Error> {
    let (home, reporter) = (&context.home, context.printer);
    if relocation.is_same() {
        let _held = context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await?;
        return Ok(relocation::readdress(home, relocation, reporter).await.map(|()| 0)?);
    }
    let opened = Datastore::open(&context.recovery(), COMMAND).await?;
    if opened.runs_for_lite {
        return Err(Error::failed("Leoflow was started again meanwhile; nothing was changed")
            .hint("run the same command again"));
    }
    drop(opened.connect().await?);
    let (access, server) = opened.into_parts();
    let (server, _held) = server.unzip();
    let rows = relocation::relocate(home, (&access, server), relocation, reporter).await?;
    // Copies from before an upgrade are where the data was.
    snapshot::forget_all(home).map_err(|error| Error::io("write", &home.upgrade(), &error))?;
    Ok(rows)
}

/// Another password, or another address of the same, is something to do. What config.yaml says decides nothing here: it
/// may say anything, and the data is where the record has it.
fn refuse_same(context: &Context<'_>, to: &DatastoreSetting) -> Result<(), Error> {
    let home = &context.home;
    let recorded = place::recorded(home)?;
    let is_same = match (recorded.as_ref().map(|place| place.kind), to) {
        (None, DatastoreSetting::Managed) | (Some(place::Kind::Docker), DatastoreSetting::Docker) => true,
        (Some(place::Kind::External), _) => *to == place::configured(home)? && place::is_configured(home)?,
        _ => false,
    };
    if !is_same {
        return Ok(());
    }
    let shown = recorded.map_or("the datastore under the home".to_owned(), |place| place.shown);
    let refused = Error::refused(format!("the data of this home is in {shown} already"));
    Err(match place::is_configured(home) {
        Ok(true) => refused.hint("leoflow lite status"),
        _ => refused.hint(format!("put back what config.yaml said of it: datastore: {to}")),
    })
}

/// Whether both are one database of one server. Where the one in use cannot be asked, the claim in the other one is: it
/// is ours, and was not moved away from.
async fn leads_to_the_same(context: &Context<'_>, to: &DatastoreSetting) -> Result<bool, Error> {
    let Some(place) = place::recorded(&context.home)?.filter(|place| place.kind == place::Kind::External) else {
        return Ok(false);
    };
    let Some(to) = to.external().map_err(place::PlaceError::Url)? else { return Ok(false) };
    if place.is(&to) {
        return Ok(true);
    }
    if let Ok(from) = place::external(&context.home)
        && let Ok(is_same) = rights::are_the_same(&from, &to).await
    {
        return Ok(is_same);
    }
    let claim = rights::look(&to).await?.claim;
    Ok(claim.is_some_and(|claim| claim.home_id == place.home_id && claim.moved_to.is_none()))
}

/// The content goes through this machine's disk, and perhaps stays on it.
async fn check_room(context: &Context<'_>) -> Result<(), Error> {
    let opened = Datastore::open(&context.recovery(), COMMAND).await?;
    let client = opened.connect().await?;
    let query = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";
    let row = client.query_one(query, &[]).await.map_err(crate::postgres::PgError::from)?;
    let bytes = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    let needed = bytes.saturating_mul(2).saturating_add(MARGIN);
    let root = context.home.root();
    let free = disk::free_bytes(root).map_err(|error| Error::io("look at", root, &error))?;
    match free < needed {
        true => {
            Err(Error::refused(format!("{needed} bytes are needed where {} is, and {free} are free", root.display()))
                .hint("free some space, then run the same command again; nothing was changed"))
        }
        false => Ok(()),
    }
}

/// Room for a cluster of its own and the write-ahead log, bytes.
const MARGIN: u64 = 256 * 1024 * 1024;

fn tell_plan(context: &Context<'_>, relocation: &Relocation) {
    let printer = context.printer;
    printer.note(format!("from  {}", relocation.from_shown()));
    printer.note(format!("to    {}", relocation.to_shown()));
    if relocation.is_same() {
        return printer.note("It is the same database. Nothing is copied; Leoflow is started again if it runs.");
    }
    printer.note("Leoflow is stopped meanwhile, and started again if it runs. The old datastore stays as it is.");
    if side::kept(&context.home).is_some() {
        printer.warning(
            "what the last restore replaced stays in the old datastore: `restore --undo` cannot bring it back",
        );
    }
}
