//! `leoflow lite restore --undo`: the same exchange again, so that it can be undone too.

use super::replaced;
use super::restore_present::{alone_with_it, refuse_beside_a_terminal};
use crate::backup::content::Content;
use crate::backup::restore_plan::Refusal;
use crate::backup::side::{self, Kept, Side, When};
use crate::backup::{RestoreError, dump, obstacles, restore};
use crate::cli::args::Restore;
use crate::commands::context::Context;
use crate::config;
use crate::error::Error;
use crate::home::lock::OperationLock;
use crate::postgres::Login;
use crate::recovery::datastore::Datastore;
use crate::schema::embedded::newest;
use crate::schema::{self, SchemaError, known};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

const COMMAND: &str = "leoflow lite restore --undo";

pub async fn run(context: &Context<'_>, args: &Restore) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    if args.dry_run {
        context.recovery().refuse_interrupted()?;
    } else {
        context.recovery().finish_first(COMMAND).await?;
    }
    let Some((side, kept)) = side::kept(home) else { return Err(RestoreError::NothingKept.into()) };
    if let Some(folder) = &kept.unreadable {
        return Err(was_unreadable(folder, side.folder()));
    }
    let obstacle = obstacles::of_exchange(home, kept.workspace.as_deref());
    if let Some(obstacle) = obstacle.map_err(|error| Error::io("look at", home.root(), &error))? {
        return Err(RestoreError::from(Refusal::from(obstacle)).into());
    }
    refuse_beside_a_terminal(context)?;
    let alone = OperationLock::take(home, COMMAND)?;
    let datastore = Datastore::open(&context.recovery(), COMMAND).await?;
    if !args.dry_run {
        context.recovery().clean_up(Some(&datastore.access)).await?;
    }
    let now = replaced::summary(context, &datastore).await?;
    let rows = count_kept(&datastore, &side).await?;
    let lost = replaced::changes(&kept.rows, &now.rows);
    tell_plan(context, &kept, &lost);
    if args.dry_run {
        printer.note("Nothing was changed.");
        if printer.json {
            printer.json(
                &json!({"dry_run": true, "in_force": kept.in_force, "comes_back": kept.set_aside, "changes": lost}),
            )?;
        }
        return Ok(0);
    }
    let current = context.config()?.map(|loaded| loaded.config);
    if !context.confirm_by_name("Bring it back?", config::instance_name(current.as_ref()), args.yes)? {
        return Err(Error::failed("nothing was changed"));
    }
    let (datastore, was_running) = alone_with_it(context, datastore).await?;
    let outcome = restore::undo(home, &datastore.access, rows).await;
    drop(datastore);
    drop(alone);
    let restarted = was_running.map(|was_running| was_running.restart(context));
    let kept = outcome?;
    if printer.json {
        let runs = matches!(restarted, Some(Ok(())));
        printer.json(&json!({"undone": true, "in_force": kept.in_force, "running": runs}))?;
    } else {
        printer.line(format!("In force again:  {}", kept.in_force));
        printer.line("  what it replaced is kept:  leoflow lite restore --undo");
    }
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

fn was_unreadable(datastore: &Path, others: &Path) -> Error {
    Error::refused(format!(
        "what that restore replaced could not be read: the datastore is kept whole in {}, the workspace and the task \
         logs in {}",
        datastore.display(),
        others.display()
    ))
    .hint("leoflow lite backups list")
    .hint("leoflow lite restore --input FILE --force brings another backup")
}

/// The rows of what would come back, which has to be of a schema that this program knows.
async fn count_kept(datastore: &Datastore, side: &Side) -> Result<BTreeMap<String, i64>, Error> {
    if !datastore.access.is_ours() {
        let path = side.content(When::After);
        let content = Content::at(&path).map_err(|error| Error::io("read", &path, &error))?;
        let facts = content.ok_or(RestoreError::KeptGone(path))?.facts;
        return match facts.schema_version > newest(known()) {
            true => Err(of_newer(facts.schema_version, newest(known()))),
            false => Ok(facts.rows),
        };
    }
    let login = Login { database: side.id.side_database(), ..datastore.access.application() };
    let client = datastore.access.connect(&login).await?;
    let state = schema::classify(known(), &schema::inspect(&client).await?);
    match schema::refusal(&state) {
        None => Ok(dump::count_all(&client).await?),
        Some(SchemaError::Newer { database, binary }) => Err(of_newer(database, binary)),
        Some(error) => Err(error.into()),
    }
}

fn of_newer(database: i64, binary: i64) -> Error {
    Error::refused(format!(
        "what that restore replaced is of a newer leoflow: its schema is {database}, this one knows up to {binary}"
    ))
    .hint("leoflow upgrade VERSION to the release that it was of (`leoflow versions` names those that are here)")
    .hint("then leoflow lite restore --undo")
}

fn tell_plan(context: &Context<'_>, kept: &Kept, lost: &[String]) {
    let printer = context.printer;
    printer.note(format!("In force since {}:  {}", kept.exchanged_at, kept.in_force));
    printer.note(format!("Comes back:  {}", kept.set_aside));
    if lost.is_empty() {
        printer.note("Since then no rows have come or gone.");
    } else {
        printer.note(format!("What has changed since then goes out of force: {}.", lost.join(", ")));
    }
    printer.note("Files that were changed in the workspace go with it. All of it is kept: `restore --undo` again brings it back.");
}
