//! `leoflow lite move-datastore`.

use crate::commands::lite::restart;
use crate::commands::lite::start_check::{self, Starter};
use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::Args;
use leoflow_base::config::{self, DatastoreSetting};
use leoflow_base::protocol::control;
use leoflow_lifecycle::backup::relocation::Relocation;
use leoflow_lifecycle::operation::move_datastore::{self, MovePlan};
use leoflow_lifecycle::operation::restore::Applied;
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

pub async fn run(context: &Context<'_>, args: &MoveDatastore) -> Result<u8, Error> {
    let printer = context.printer;
    let to = DatastoreSetting::parse(&args.to).map_err(|allowed| Error::usage(format!("--to is not {allowed}")))?;
    let plan = move_datastore::plan(&context.operation(), &to, args.dry_run.into()).await?;
    print_plan(printer, &plan);
    if args.dry_run {
        printer.note("Nothing was changed.");
        let (from, to) = (plan.relocation.from_description(), plan.relocation.to_description());
        return printer.show(&json!({"dry_run": true, "from": from, "to": to}), |_| {});
    }
    let configured = context.config()?.map(|loaded| loaded.config);
    context.require_name("Move your data?", config::instance_name(configured.as_ref()), args.yes.into())?;
    if control::status_of(&context.home).is_some() {
        packaged::refuse_newer(context)?;
        start_check::run(context, Starter::ThisCommand)?;
        restart::check_address(context)?;
    }
    let (relocation, Applied { outcome, stopped }) = move_datastore::apply(plan).await;
    let restarted = stopped.map(|stopped| restart::start_again(context, stopped));
    print_result(printer, &relocation, outcome?, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

fn print_plan(printer: &Printer, plan: &MovePlan<'_>) {
    printer.note(format!("from  {}", plan.relocation.from_description()));
    printer.note(format!("to    {}", plan.relocation.to_description()));
    if plan.relocation.is_same() {
        return printer.note("Both lead to the same database, so nothing is copied. A running Leoflow is restarted.");
    }
    printer.note("A running Leoflow is stopped and started again. The old datastore is kept unchanged.");
    if plan.ends_undo {
        printer.warning(
            "the data that the last restore replaced stays in the old datastore; `restore --undo` will no longer work",
        );
    }
}

fn print_result(printer: &Printer, relocation: &Relocation, rows: i64, is_running: bool) -> Result<u8, Error> {
    let to = relocation.to_description();
    let kept = (!relocation.is_same()).then(|| relocation.old_location());
    let json = json!({"to": to, "rows": rows, "kept": kept, "running": is_running});
    printer.show(&json, |printer| match &kept {
        None => printer.line(format!("Your data was not moved; it is now accessed as {to}")),
        Some(kept) => {
            let rows = counted(rows, "row");
            printer.line(format!("Moved your data to {to}: {rows}, counted on both sides"));
            printer.line(format!("  the old datastore is kept: {kept}"));
        }
    })
}
