//! `--all`: runs a command for every instance of this user, one after another, each with its own program. Prints a row
//! per instance. Stops at the first failure unless `--keep-going` is set; a repeated command does the other instances.

use super::backup_progress::BackupProgress;
use super::instance_command::{Instance, InstanceCommand};
use crate::commands::backup::create::Backup;
use crate::commands::lite::stop::{LiteStop, confirm_end_of_tasks, count_running_tasks};
use crate::commands::release::upgrade::args::Upgrade;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{counted, human_size};
use leoflow_base::home::all_instances;
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_lifecycle::upgrade::release::source::Source;
use serde_json::Value;

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
    let running = instances.iter().map(|(_, home)| count_running_tasks(context, home)).sum();
    if running > 0 && !args.yes && !args.wait {
        confirm_end_of_tasks(context, running, &format!("Stop {} and end them?", names(&instances)))?;
    }
    let option = if args.wait { "--wait" } else { "--yes" };
    let describe = |result: &Value| match (result["was_running"] == true, result["ended_tasks"].as_u64()) {
        (false, _) => "was not running".to_owned(),
        (true, Some(ended @ 1..)) => format!("stopped, ended {}", counted(ended, "running task")),
        (true, _) => "stopped".to_owned(),
    };
    InstanceCommand::new(&["lite", "stop", option], &args.all, describe).run(context, instances).await
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
    let mut arguments = vec!["upgrade"];
    arguments.extend(args.version.as_deref());
    let (secret_from, from): (Option<&str>, _) = match args.from.from.as_deref() {
        // A secret is not passed in argv, which every user of the machine can read.
        Some(from) if Source::parse(from).has_secret() => (Some(from), None),
        from => (None, from),
    };
    arguments.extend(from.into_iter().flat_map(|from| ["--from", from]));
    arguments.push(if args.dry_run { "--dry-run" } else { "--yes" });
    let options = [(args.no_rollback, "--no-rollback"), (args.accept_old_manifest, "--accept-old-manifest")];
    arguments.extend(options.into_iter().filter(|(is_set, _)| *is_set).map(|(_, option)| option));
    let describe = |result: &Value| {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        match text("status") {
            "up_to_date" => format!("already at {}", text("version")),
            "" => format!("would upgrade from {} to {}", text("from"), text("to")),
            _ => format!("upgraded from {} to {}", text("previous_version"), text("new_version")),
        }
    };
    let command = InstanceCommand::new(&arguments, &args.all, describe);
    let variable = secret_from.map(|from| (RELEASE_SOURCE, from.to_owned()));
    InstanceCommand { variable, ..command }.run(context, instances).await
}

/// `leoflow lite backup --all`.
pub async fn backup(context: &Context<'_>, args: &Backup) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    // Only a backup of all instances is resumed, not one of selected instances.
    let backup_progress = args.all.only.is_empty().then(|| BackupProgress::load(&instances[0].1));
    let describe = |result: &Value| {
        let size = human_size(result["size_bytes"].as_u64().unwrap_or(0));
        let skipped_text = match result["skipped"].as_array().map_or(0, Vec::len) {
            0 => String::new(),
            count => format!(", without {}", counted(count, "unreadable file")),
        };
        format!("{}, {size}{skipped_text}", result["path"].as_str().unwrap_or_default())
    };
    let command = InstanceCommand::new(&["lite", "backup"], &args.all, describe);
    InstanceCommand { backup_progress, ..command }.run(context, instances).await
}
