//! `leoflow history …`.

use crate::args::complete;
use crate::commands::backup::restore::keys;
use crate::commands::backup::restore_args::Decryption;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use leoflow_base::sys::env_vars;
use leoflow_engine::model::keys::RunKey;
use leoflow_lifecycle::operation::restore_run::restore_run;
use serde_json::json;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  leoflow history restore hello --run RUN_ID")]
pub enum HistoryCommand {
    /// Bring back a run that was removed, with its tasks, XComs and logs, for reading
    #[command(
        after_help = "Examples:\n  leoflow history restore hello --run RUN_ID    from the archives in backups/\n  \
                      leoflow history restore hello --run RUN_ID --input history-20260101T000000Z.tar.zst"
    )]
    Restore(RestoreRun),
}

#[derive(Args, Debug)]
pub struct RestoreRun {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    dag_id: String,
    /// The run's id
    #[arg(long, value_name = "RUN_ID")]
    run: String,
    /// The backup to take the run from [default: the newest archive of removed history that has it]
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    decryption: Decryption,
}

pub async fn run(context: &Context<'_>, HistoryCommand::Restore(args): &HistoryCommand) -> Result<u8, Error> {
    let run = RunKey { dag_id: args.dag_id.clone(), run_id: args.run.clone() };
    let file = args.input.as_deref().map(env_vars::absolute).transpose()?;
    let keys = keys(context, &args.decryption)?;
    let command = "leoflow history restore";
    let restored = restore_run(&context.operation(), &run, file.as_deref(), &keys, command).await?;
    let shape = json!({
        "dag_id": run.dag_id, "dag_run_id": run.run_id, "archive": restored.archive,
        "task_instances": restored.task_instances, "logs": restored.logs,
    });
    context.printer.show(&shape, |printer| {
        let (tasks, logs) = (counted(restored.task_instances as usize, "task"), counted(restored.logs as usize, "log"));
        printer.line(format!("{}  {}  restored, {tasks}, {logs}", run.dag_id, run.run_id));
        printer.note(format!(
            "It came from {}; the next clean-up of the history removes it again.",
            restored.archive.display()
        ));
    })
}
