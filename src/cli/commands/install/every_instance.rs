//! `--all`: runs a command for every instance of this user, one after another, each with its own program. Prints a row
//! per instance. Stops at the first failure unless `--keep-going` is set; a repeated command does the other instances.

use super::backup_progress::BackupProgress;
use super::instance_command::{Instance, InstanceCommand};
use crate::commands::backup::create::Backup;
use crate::commands::lite::stop::{LiteStop, unreadable_tasks_error};
use crate::commands::release::upgrade::args::Upgrade;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::{counted, human_size};
use leoflow_base::home::all_instances;
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_lifecycle::upgrade::release::source::Source;
use leoflow_processes::agent;
use serde_json::Value;
use std::ffi::OsString;

/// Returns the selected instances; fails when there are none.
fn instances(only: &[String]) -> Result<Vec<Instance>, Error> {
    let mut instances = all_instances();
    if instances.is_empty() {
        return Err(Error::failed("this user has no instances on this machine").hint("leoflow lite start"));
    }
    if let Some(missing) = only.iter().find(|name| !instances.iter().any(|(other, _)| *name == other)) {
        return Err(Error::failed(format!(
            "instance {missing:?} does not exist; existing instances: {}",
            names(&instances)
        ))
        .hint("leoflow instances list"));
    }
    instances.retain(|(name, _)| only.is_empty() || only.contains(name));
    Ok(instances)
}

fn names(instances: &[Instance]) -> String {
    instances.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

pub async fn stop(context: &Context<'_>, args: &LiteStop) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    let mut running = 0;
    for (_, home) in &instances {
        let (count, read_error) = agent::running(home);
        if let Some(error) = read_error {
            context.printer.warning(format!(
                "the list of running tasks is incomplete: {}",
                unreadable_tasks_error(home, &error).message
            ));
        }
        running += count;
    }
    if running > 0 && !args.yes && !args.wait {
        let tasks = counted(running, "running task");
        context.printer.note(format!("A stop ends {tasks}; `--wait` lets them finish first."));
        if !context.confirm(&format!("Stop {} and end them?", names(&instances)), Confirmation::Ask)? {
            return Err(Error::failed(Context::DECLINED));
        }
    }
    let option = if args.wait { "--wait" } else { "--yes" };
    let describe = |result: &Value| match (result["was_running"] == true, result["ended_tasks"].as_u64()) {
        (false, _) => "was not running".to_owned(),
        (true, Some(ended @ 1..)) => format!("stopped, ended {}", counted(ended, "running task")),
        (true, _) => "stopped".to_owned(),
    };
    let arguments = ["lite", "stop", option].map(OsString::from).to_vec();
    let command = InstanceCommand {
        arguments,
        variables: Vec::new(),
        keep_going: args.all.keep_going,
        describe,
        backup_progress: None,
    };
    command.run(context, instances).await
}

pub async fn upgrade(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    if !args.dry_run {
        let version = args.version.as_deref().unwrap_or("the newest release");
        if !context
            .confirm(&format!("Upgrade {} one after another to {version}?", names(&instances)), args.yes.into())?
        {
            context.printer.note(Context::DECLINED);
            return Ok(1);
        }
    }
    let mut arguments = vec![OsString::from("upgrade")];
    arguments.extend(args.version.as_ref().map(OsString::from));
    let mut variables = Vec::new();
    match args.from.from.as_deref() {
        // A secret is not passed in argv, which every user of the machine can read.
        Some(from) if Source::parse(from).has_secret() => variables.push((RELEASE_SOURCE, from.into())),
        Some(from) => arguments.extend(["--from".into(), from.into()]),
        None => {}
    }
    arguments.push(if args.dry_run { "--dry-run" } else { "--yes" }.into());
    let options = [(args.no_rollback, "--no-rollback"), (args.accept_old_manifest, "--accept-old-manifest")];
    arguments.extend(options.into_iter().filter(|(is_set, _)| *is_set).map(|(_, option)| option.into()));
    let describe = |result: &Value| {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        match text("status") {
            "up_to_date" => format!("already at {}", text("version")),
            "" => format!("would upgrade from {} to {}", text("from"), text("to")),
            _ => format!("upgraded from {} to {}", text("previous_version"), text("new_version")),
        }
    };
    let command =
        InstanceCommand { arguments, variables, keep_going: args.all.keep_going, describe, backup_progress: None };
    command.run(context, instances).await
}

/// `leoflow lite backup --all`.
pub async fn backup(context: &Context<'_>, args: &Backup) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    // Only a backup of all instances is resumed, not one of selected instances.
    let mut backup_progress = args.all.only.is_empty().then(|| BackupProgress::load(&instances[0].1));
    let describe = |result: &Value| {
        let size = human_size(result["size_bytes"].as_u64().unwrap_or(0));
        let skipped_text = match result["skipped"].as_array().map_or(0, Vec::len) {
            0 => String::new(),
            count => format!(", without {}", counted(count, "unreadable file")),
        };
        format!("{}, {size}{skipped_text}", result["path"].as_str().unwrap_or_default())
    };
    let arguments = ["lite", "backup"].map(OsString::from).to_vec();
    let keep_going = args.all.keep_going;
    let command = InstanceCommand {
        arguments,
        variables: Vec::new(),
        keep_going,
        describe,
        backup_progress: backup_progress.as_mut(),
    };
    command.run(context, instances).await
}
