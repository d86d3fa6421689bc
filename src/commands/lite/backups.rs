//! `leoflow lite backups`: list, verify, prune.

use super::restore::keys;
use crate::backup::catalog::{self, Listed, Proof};
use crate::backup::retention::{self, Limits};
use crate::backup::{Input, verify};
use crate::cli::args::{Backups, BackupsCommand, VerifyBackups};
use crate::cli::printer::{Printer, in_words};
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::lock::OperationLock;
use crate::home::upkeep::{self, End};
use crate::recovery::datastore::{self, Datastore};
use crate::sys::{env_vars, files};
use crate::upgrade::history;
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

pub async fn run(context: &Context<'_>, args: &Backups) -> Result<u8, Error> {
    match &args.command {
        None | Some(BackupsCommand::List) => list(context),
        Some(BackupsCommand::Verify(args)) => verify(context, args).await,
        Some(BackupsCommand::Prune { dry_run, yes }) => prune(context, *dry_run, *yes),
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let backups = catalog::list(&context.home);
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({"backups": backups, "upkeep": upkeep::read(&context.home)}))?;
        return Ok(0);
    }
    if backups.is_empty() {
        printer.note(format!("There are no backups in {}.", context.home.backups().display()));
        printer.note("Make one:  leoflow lite backup");
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = backups.iter().map(|backup| row(printer, backup)).collect();
    printer.table(&["CREATED", "SIZE", "ROWS", "SCHEMA", "LAST VERIFIED", "FILE"], &rows);
    Ok(0)
}

fn prune(context: &Context<'_>, dry_run: bool, yes: bool) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let settings = context.config()?.map(|loaded| loaded.config.backup).unwrap_or_default();
    // Nobody makes one, or goes back to one, meanwhile.
    let _alone = (!dry_run).then(|| OperationLock::take(home, "leoflow lite backups prune")).transpose()?;
    let limits = Limits::of(&settings, Timestamp::now());
    let pinned = history::ways_back(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let excess = retention::excess(&catalog::list(home), Path::new(""), &pinned, &limits);
    let freed: u64 = excess.iter().map(|one| one.size_bytes).sum();
    if !printer.json {
        for one in &excess {
            printer.note(format!("remove  {:>10}  {}  ({})", in_words(one.size_bytes), one.path.display(), one.why));
        }
    }
    if !dry_run && !excess.is_empty() {
        if !context.confirm("Remove these?", yes)? {
            return Err(Error::failed("nothing was removed"));
        }
        for one in &excess {
            files::remove_any(&one.path).map_err(|error| Error::io("remove", &one.path, &error))?;
        }
    }
    if printer.json {
        printer.json(&json!({"removed": excess, "freed_bytes": freed, "dry_run": dry_run}))?;
        return Ok(0);
    }
    printer.line(match (excess.len(), dry_run) {
        (0, _) => "No automatic backup is over the limits of config.yaml".to_owned(),
        (count, true) => format!("{count} would go, {}; nothing was changed", in_words(freed)),
        (count, false) => format!("{count} are gone, {}", in_words(freed)),
    });
    Ok(0)
}

fn row(printer: &Printer, backup: &Listed) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        printer.time(backup.created_at.as_deref()),
        in_words(backup.size_bytes),
        or_dash(backup.rows.map(|rows| rows.to_string())),
        or_dash(backup.schema_version.map(|version| version.to_string())),
        match (&backup.problem, &backup.last_verified) {
            (Some(problem), _) => problem.clone(),
            (None, None) => "never".to_owned(),
            (None, Some(proof)) => said(printer, proof),
        },
        backup.path.display().to_string(),
    ]
}

fn said(printer: &Printer, proof: &Proof) -> String {
    let at = printer.time(Some(&proof.verified_at));
    match (&proof.problem, proof.quick) {
        (Some(problem), _) => format!("{at}, failed: {problem}"),
        (None, _) if proof.unopened => format!("{at}, not opened"),
        (None, true) => format!("{at}, hashes only"),
        (None, false) => at.clone(),
    }
}

async fn verify(context: &Context<'_>, args: &VerifyBackups) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let note = |end: End| {
        if let Err(error) = upkeep::note_end(home, Timestamp::now(), upkeep::Kind::Verification, end) {
            printer.warning(format!("that cannot be written down: {error}"));
        }
    };
    if args.scheduled && catalog::list(home).is_empty() {
        // There is nothing to prove until the next time.
        note(End::Partial);
        return list(context);
    }
    let files = chosen(context, args)?;
    let keys = keys(context, &args.decryption)?;
    let command = "leoflow lite backups verify";
    // Hashes need no datastore, and no home either.
    let mut opened = None;
    if !args.quick {
        datastore::check(&context.home)?;
        let alone = OperationLock::take(home, command)?;
        let datastore = Datastore::open(&context.recovery(), command).await?;
        context.recovery().clean_up(Some(&datastore.access)).await?;
        opened = Some((datastore, alone));
    }
    // A key that was given was to open it.
    let is_given = !args.decryption.identity.is_empty() || args.decryption.passphrase_file.is_some();
    let mut results = Vec::new();
    for file in files {
        if args.scheduled
            && let Some(proof) = catalog::known_proof(home, &file).filter(|proof| !proof.ok)
        {
            // It is what it was: the same would be found.
            results.push((file, proof));
            continue;
        }
        let input = Input { path: file.clone(), keys: keys.clone() };
        let outcome = match &opened {
            None => verify::hashes(&input, printer),
            Some((datastore, _)) => verify::trial(home, &datastore.access, &input, context.version, printer).await,
        };
        // What is wrong with this machine says nothing about the file.
        let (rows, proof) = match outcome {
            Ok(manifest) => (Some(manifest.rows()), Proof::now(args.quick, None)),
            Err(error) if error.is_refusal() => (None, Proof::now(args.quick, Some(error.to_string()))),
            Err(error) if error.is_closed() && (args.all || !is_given) => {
                let compared = catalog::unopened(home, &file).map_err(|error| Error::io("read", &file, &error))?;
                match compared {
                    Some(proof) => (None, proof),
                    // One of several says nothing of the others.
                    None if args.all => (None, Proof::unopened(Some(error.to_string()))),
                    None => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if home.exists()
            && let Err(error) = catalog::remember(home, &file, &proof)
        {
            printer.warning(format!("the result cannot be remembered: {error}"));
        }
        if !printer.json {
            tell(context, &file, rows, &proof);
        }
        results.push((file, proof));
    }
    // Without a key nothing more can be done by itself.
    let all = |is: fn(&Proof) -> bool| results.iter().all(|(_, proof)| is(proof));
    if home.exists() && args.file.is_none() {
        if all(Proof::is_whole) {
            note(End::Done);
        } else if all(|proof| proof.ok && (proof.unopened || !proof.quick)) {
            note(End::Partial);
        }
    }
    if printer.json {
        let results: Vec<_> =
            results.iter().map(|(path, proof)| json!({"path": path, "last_verified": proof})).collect();
        printer.json(&json!({"backups": results}))?;
        return Ok(if results.iter().all(|result| result["last_verified"]["ok"] == true) { 0 } else { 1 });
    }
    let bad = results.iter().filter(|(_, proof)| !proof.ok).count();
    match bad {
        0 => Ok(0),
        _ => Err(Error::failed(format!("{bad} of {} backups cannot be restored", results.len()))
            .hint("make a new one:  leoflow lite backup")),
    }
}

fn tell(context: &Context<'_>, file: &Path, rows: Option<i64>, proof: &Proof) {
    let file = file.display();
    match (&proof.problem, rows) {
        (None, _) if proof.unopened => {
            context.printer.line(format!("{file}: byte by byte what was written"));
            context
                .printer
                .note("It is encrypted: whether it can be restored was not tried. Try it with --identity KEY-FILE");
        }
        (None, Some(rows)) if !proof.quick => context.printer.line(format!("{file}: restored on trial, {rows} rows")),
        (None, _) => context.printer.line(format!("{file}: every hash is right")),
        (Some(problem), _) => context.printer.line(format!("{file}: {problem}")),
    }
}

fn chosen(context: &Context<'_>, args: &VerifyBackups) -> Result<Vec<PathBuf>, Error> {
    if let Some(file) = &args.file {
        let here = env_vars::current_dir().map_err(Error::failed)?;
        return Ok(vec![here.join(file)]);
    }
    let all: Vec<PathBuf> = catalog::list(&context.home).into_iter().map(|backup| backup.path).collect();
    if all.is_empty() {
        return Err(Error::failed(format!("there are no backups in {}", context.home.backups().display()))
            .hint("name one:  leoflow lite backups verify FILE"));
    }
    Ok(if args.all { all } else { all.into_iter().take(1).collect() })
}
