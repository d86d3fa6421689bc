//! `leoflow lite restore --undo`: swaps the two states again, so that the undo can be undone.

use super::current_state::{open_exclusively, refuse_in_terminal};
use super::restore_args::Restore;
use super::state_summary;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_lifecycle::backup::RestoreError;
use leoflow_lifecycle::backup::content::Content;
use leoflow_lifecycle::backup::create::dump;
use leoflow_lifecycle::backup::restore::restore_dir::{self, RestoreDir, RetainedState, When};
use leoflow_lifecycle::backup::restore::restore_plan::RestoreRefusal;
use leoflow_lifecycle::backup::restore::{self, obstacles};
use leoflow_postgres::Login;
use leoflow_postgres::schema::embedded::newest;
use leoflow_postgres::schema::{self, SchemaError, known};
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
    let (restore_dir, retained) = find_retained(home)?;
    refuse_in_terminal(context)?;
    let operation_lock = OperationLock::take(home, COMMAND)?;
    let datastore = Datastore::open(&context.recovery(), COMMAND).await?;
    if !args.dry_run {
        context.recovery().clean_up(Some(&datastore.access)).await?;
    }
    let summary = state_summary::summarize(context, &datastore).await?;
    let rows = count_kept(&datastore, &restore_dir).await?;
    let diff = state_summary::changes(&retained.rows, &summary.rows);
    print_plan(context, &retained, &diff);
    if args.dry_run {
        printer.note("Nothing was changed.");
        if printer.json {
            printer.json(
                &json!({"dry_run": true, "in_force": retained.restored, "comes_back": retained.replaced, "changes": diff}),
            )?;
        }
        return Ok(0);
    }
    args.check_address(context)?;
    let current = context.config()?.map(|loaded| loaded.config);
    if !context.confirm_by_name("Undo the restore?", config::instance_name(current.as_ref()), args.yes.into())? {
        return Err(Error::failed(Context::DECLINED));
    }
    let (datastore, was_running) = open_exclusively(context, datastore).await?;
    let outcome = restore::undo(home, &datastore.access, rows).await;
    drop(datastore);
    drop(operation_lock);
    let restarted = args.restart(context, was_running);
    let retained = outcome?;
    print_result(context, &retained, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

/// Finds the state to bring back. Fails if none is kept, if it is unreadable, or if an obstacle prevents the renames.
fn find_retained(home: &Home) -> Result<(RestoreDir, RetainedState), Error> {
    let retained = restore_dir::retained(home).map_err(|error| Error::io("read", &home.restore(), &error))?;
    let (restore_dir, retained) = retained.ok_or(RestoreError::NoRetainedState)?;
    if let Some(folder) = &retained.unreadable {
        return Err(unreadable_error(folder, restore_dir.folder()));
    }
    let obstacle = obstacles::find_in_exchange(home, retained.workspace.as_deref());
    match obstacle.map_err(|error| Error::io("read", home.root(), &error))? {
        Some(obstacle) => Err(RestoreError::from(RestoreRefusal::from(obstacle)).into()),
        None => Ok((restore_dir, retained)),
    }
}

fn print_result(context: &Context<'_>, retained: &RetainedState, is_running: bool) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        return printer.json(&json!({"undone": true, "in_force": retained.restored, "running": is_running}));
    }
    printer.line(format!("Restored:  {}", retained.restored));
    match is_running {
        true => printer.line("  Leoflow is running again"),
        false => printer.advice("  Start it:  leoflow lite start"),
    }
    printer.advice("  undo it:  leoflow lite restore --undo");
    Ok(())
}

fn unreadable_error(datastore: &Path, other_files: &Path) -> Error {
    Error::refused(format!(
        "the state that the restore replaced was unreadable; its datastore is kept in {}, its workspace and task logs \
         in {}",
        datastore.display(),
        other_files.display()
    ))
    .hint("leoflow lite backups list")
    .hint("restore another backup: leoflow lite restore --input FILE --force")
}

/// Counts the rows of the kept state, whose schema this program must know.
async fn count_kept(datastore: &Datastore, restore_dir: &RestoreDir) -> Result<BTreeMap<String, i64>, Error> {
    if !datastore.access.owns_server() {
        let path = restore_dir.content(When::After);
        let content = Content::at(&path).map_err(|error| Error::io("read", &path, &error))?;
        let facts = content.ok_or(RestoreError::RetainedStateMissing(path))?.facts;
        return match facts.schema_version > newest(known()) {
            true => Err(newer_schema_error(facts.schema_version, newest(known()))),
            false => Ok(facts.rows),
        };
    }
    let login = Login { database: restore_dir.id.standby_database(), ..datastore.access.application() };
    let client = datastore.access.connect(&login).await?;
    let state = schema::classify(known(), &schema::inspect(&client).await?);
    match schema::refusal(&state) {
        None => Ok(dump::count_all(&client).await?),
        Some(SchemaError::Newer { database, binary }) => Err(newer_schema_error(database, binary)),
        Some(error) => Err(error.into()),
    }
}

fn newer_schema_error(database: i64, binary: i64) -> Error {
    Error::refused(format!(
        "the state that the restore replaced is of a newer leoflow: its schema is {database}, this one knows up to {binary}"
    ))
    .hint("upgrade to its release first: leoflow upgrade VERSION (`leoflow versions` lists the kept ones)")
    .hint("then run leoflow lite restore --undo")
}

fn print_plan(context: &Context<'_>, retained: &RetainedState, diff: &[String]) {
    let printer = context.printer;
    let since = printer.time(Some(&retained.exchanged_at));
    printer.note(format!("Current state, since {since}:  {}", retained.restored));
    printer.note(format!("Restored by the undo:  {}", retained.replaced));
    if diff.is_empty() {
        printer.note("No row counts have changed since then.");
    } else {
        printer.note(format!("Changes since then are undone: {}.", diff.join(", ")));
    }
    printer.note("Changed files in the workspace are replaced too. Everything is kept: undo again to bring it back.");
}
