//! `leoflow lite backup`.

use crate::backup::automatic::{self, Automatic};
use crate::backup::encryption::EncryptTo;
use crate::backup::{self, Made, Request, notes};
use crate::cli::args::Backup;
use crate::cli::printer::in_words;
use crate::commands::context::Context;
use crate::config::{self, Config};
use crate::error::Error;
use crate::home::lock::OperationLock;
use crate::home::upkeep::{self, End};
use crate::postgres::Access;
use crate::recovery::datastore::Datastore;
use crate::sys::{clock, env_vars, files};
use crate::upgrade::history;
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

const COMMAND: &str = "leoflow lite backup";

pub async fn run(context: &Context<'_>, args: &Backup) -> Result<u8, Error> {
    let home = &context.home;
    let config = configured(context)?;
    let encrypt_to = EncryptTo::of(&config.backup)?;
    let output = output(context, args, &encrypt_to)?;
    let made = match args.scheduled {
        true => {
            let (datastore, _alone) = alone_with_datastore(context).await?;
            scheduled(context, &datastore.access, &config).await?
        }
        false => write(context, &config, &output, &encrypt_to).await?,
    };
    // It is there, whatever becomes of the notes.
    let known = if args.scheduled { Ok(()) } else { notes::note_made(home, &made) };
    // A backup made by hand in the home's own folder counts as the one that was due.
    let noted = known.and_then(|()| match args.output {
        None => upkeep::note_end(home, Timestamp::now(), upkeep::Kind::Backup, End::Done).map(drop),
        Some(_) => Ok(()),
    });
    if let Err(error) = noted {
        context.printer.warning(format!("backup created, but recording it failed: {error}"));
    }
    show(context, &made)?;
    Ok(0)
}

/// One that is not encrypted, for what restores it at once.
pub async fn write_plain(context: &Context<'_>, output: &Path) -> Result<Made, Error> {
    write(context, &configured(context)?, output, &EncryptTo::Nobody).await
}

fn configured(context: &Context<'_>) -> Result<Config, Error> {
    context.config()?.map(|loaded| loaded.config).ok_or_else(|| {
        Error::failed("Leoflow is not set up in this home, so there is nothing to back up").hint("leoflow setup")
    })
}

async fn alone_with_datastore(context: &Context<'_>) -> Result<(Datastore, OperationLock), Error> {
    context.recovery().settle_change(false).await?;
    let alone = OperationLock::take(&context.home, COMMAND)?;
    let datastore = Datastore::open(&context.recovery(), COMMAND).await?;
    // The role and the database are made by the first start, or here.
    drop(datastore.connect().await?);
    context.recovery().clean_up(Some(&datastore.access)).await?;
    Ok((datastore, alone))
}

async fn write(context: &Context<'_>, config: &Config, output: &Path, encrypt_to: &EncryptTo) -> Result<Made, Error> {
    let (datastore, _alone) = alone_with_datastore(context).await?;
    let request = Request {
        home: &context.home,
        access: &datastore.access,
        version: context.version,
        instance: config::instance_name(Some(config)),
        workspace: config.workspace.as_deref(),
        output,
        task_logs_bytes: config.backup.task_logs_bytes,
        keep_free: 0,
        may_be_newer: false,
        encrypt_to,
    };
    Ok(backup::create(&request, context.printer).await?)
}

async fn scheduled(context: &Context<'_>, access: &Access, config: &Config) -> Result<Made, Error> {
    let pinned =
        history::ways_back(&context.home).map_err(|error| Error::io("read", &context.home.upgrade(), &error))?;
    let with = Automatic {
        home: &context.home,
        access,
        config,
        version: context.version,
        pinned: &pinned,
        reporter: context.printer,
    };
    Ok(automatic::scheduled(&with).await?)
}

/// In the home's own folder where none is named, so that it is found again; a relative path is taken from the
/// current folder.
fn output(context: &Context<'_>, args: &Backup, encrypt_to: &EncryptTo) -> Result<PathBuf, Error> {
    let Some(output) = &args.output else {
        let folder = context.home.backups();
        files::create_private_dir(&folder).map_err(|error| Error::io("create", &folder, &error))?;
        let age = if encrypt_to.is_nobody() { "" } else { ".age" };
        let at = clock::now_rfc3339().replace(['-', ':'], "");
        // Two in one second are two.
        let names = (1..).map(|number| match number {
            1 => format!("leoflow-backup-{at}.tar.zst{age}"),
            _ => format!("leoflow-backup-{at}-{number}.tar.zst{age}"),
        });
        let free = names.map(|name| folder.join(name)).find(|path| !path.exists());
        return free.ok_or_else(|| Error::bug("no name is left for a backup"));
    };
    let here = env_vars::current_dir().map_err(|error| {
        Error::failed("the current folder is gone").cause(error).hint("change to another, or give --output /PATH/FILE")
    })?;
    let output = here.join(output);
    if encrypt_to.is_nobody()
        && let Some(tree) = output.ancestors().skip(1).find(|folder| folder.join(".git").exists())
    {
        context.printer.warning(format!(
            "{} is a git work tree, and a backup holds every password: see that it is not committed",
            tree.display()
        ));
    }
    Ok(output)
}

fn show(context: &Context<'_>, made: &Made) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        return printer.json(&json!({
            "path": made.path,
            "size_bytes": made.size_bytes,
            "sha256": made.sha256,
            "encrypted": made.encrypted,
            "schema_version": made.schema_version,
            "tables": made.tables,
            "skipped": made.skipped,
        }));
    }
    for skipped in &made.skipped {
        printer.warning(format!(
            "not in the backup: {}: {}",
            skipped.path.escape_debug(),
            skipped.reason.escape_debug()
        ));
    }
    let rows: i64 = made.tables.values().sum();
    printer.line(format!("{}", made.path.display()));
    printer.line(format!("  {}, {rows} rows, schema version {}", in_words(made.size_bytes), made.schema_version));
    printer.line(format!("  sha256 {}", made.sha256));
    if made.left_out > 0 {
        printer.note(format!(
            "Left out on purpose: {} folder(s) of version control, environments and caches.",
            made.left_out
        ));
    }
    if made.encrypted {
        printer.note("It is encrypted: without the private key, which is not in it, nobody restores it.");
        printer.note(format!("Prove it:  leoflow lite backups verify '{}' --identity KEY-FILE", made.path.display()));
    } else {
        printer.note("It holds your secrets: keep it where only you can read it.");
        printer.note(format!("Prove it:  leoflow lite backups verify '{}'", made.path.display()));
    }
    Ok(())
}
