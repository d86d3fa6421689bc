//! `leoflow doctor`.

use crate::backup::restore;
use crate::cli::args::Doctor;
use crate::commands::context::Context;
use crate::commands::engine::validate::servers_python;
use crate::error::Error;
use crate::home::journal::{self, Operation};
use crate::home::lock::{self, HomeLock};
use crate::postgres::acquire::Sources;
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::{PgError, version};
use crate::protocol::control;
use crate::recovery::datastore::Datastore;
use crate::schema::{self, State, data_migration};
use crate::setup::{self, Check, Mend, SchemaFound, Unasked, Verdict, uninstall};
use crate::supervisor;
use serde_json::json;
use std::time::Duration;

pub async fn run(context: &Context<'_>, args: &Doctor) -> Result<u8, Error> {
    let schema = schema_state(context).await;
    let servers = servers_python(context).await.unwrap_or_default();
    let checks = setup::examine(&context.home, &Sources::from_environment(), schema, &servers);
    let mends: Vec<&Mend> = checks.iter().filter_map(|check| check.mend.as_ref()).collect();
    let healthy = checks.iter().all(|check| check.verdict != Verdict::Problem);
    if context.printer.json {
        context.printer.json(&json!({"ok": healthy, "checks": checks}))?;
    } else {
        show(context, &checks);
    }
    if args.fix && !mends.is_empty() {
        return fix(context, &mends, args.yes);
    }
    Ok(if healthy { 0 } else { 1 })
}

/// Asks the running datastore, or for a moment a private one.
async fn schema_state(context: &Context<'_>) -> Option<Result<SchemaFound, Unasked>> {
    if cluster::state(&context.home) != ClusterState::Ready {
        return None;
    }
    let held = lock::is_held(&context.home).unwrap_or(false);
    if held && control::status_of(&context.home).is_none() {
        // Another command has the home for a moment; that is no trouble.
        return None;
    }
    let interrupted = journal::unfinished(&context.home).ok().flatten().filter(|e| e.operation != Operation::Setup);
    if !held && interrupted.as_ref().is_some_and(|e| e.operation == Operation::Purge && uninstall::has_begun(e)) {
        let reason = "a purge was interrupted, and part of the home is gone".to_owned();
        return Some(Err(Unasked { reason, remedy: "leoflow uninstall --purge".to_owned() }));
    }
    if !held && (interrupted.is_some() || restore::has_strays(&context.home)) {
        let reason = "something was interrupted, and the next start finishes it".to_owned();
        return Some(Err(Unasked { reason, remedy: "leoflow lite start".to_owned() }));
    }
    if !held && supervisor::find_leftovers(&context.home).is_ok_and(|left| !left.is_empty()) {
        // Looking must not end them.
        let reason = "it cannot be asked while processes of a killed run are there".to_owned();
        return Some(Err(Unasked { reason, remedy: "leoflow lite start, which ends them".to_owned() }));
    }
    let asked = async {
        let datastore = Datastore::open(&context.recovery(), "leoflow doctor").await?;
        let access = &datastore.access;
        let config = access.credentials.application(&access.endpoint);
        let look = async {
            // As it is: a role or database that is missing is not made for a look.
            match access.endpoint.connect(&config).await {
                Err(PgError::NoDatabase | PgError::WrongPassword) => {
                    Ok(SchemaFound { state: State::Fresh, failed: None, server_version: None })
                }
                Err(error) => Err(error.into()),
                Ok(client) => {
                    let state = schema::classify(schema::known(), &schema::inspect(&client).await?);
                    let data = match state {
                        State::Current { .. } => data_migration::list(&client, schema::known()).await?,
                        _ => Vec::new(),
                    };
                    let failed = data.into_iter().find(|one| one.status == data_migration::Status::Failed);
                    Ok(SchemaFound { state, failed, server_version: Some(version::of_server(&client).await?) })
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), look).await;
        in_time.unwrap_or_else(|_| Err(Error::failed("the datastore does not answer")))
    };
    let found: Result<SchemaFound, Error> = asked.await;
    Some(found.map_err(|error| {
        let remedy = match error.is_damage {
            true => setup::RESTORE.to_owned(),
            false => error.hints.first().cloned().unwrap_or_else(|| "leoflow lite logs postgres".to_owned()),
        };
        Unasked { reason: error.in_one_line(), remedy }
    }))
}

fn show(context: &Context<'_>, checks: &[Check]) {
    let printer = context.printer;
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => printer.paint("32", "ok     "),
            Verdict::Warning => printer.paint("33", "warning"),
            Verdict::Problem => printer.paint("31", "problem"),
        };
        printer.line(format!("{mark}  {:<12} {}", check.name, check.detail.replace('\n', "\n                       ")));
        if let Some(remedy) = &check.remedy {
            printer.line(format!("         {:<12} -> {remedy}", ""));
        }
    }
}

fn fix(context: &Context<'_>, mends: &[&Mend], yes: bool) -> Result<u8, Error> {
    for mend in mends {
        context.printer.note(format!("would {mend}"));
    }
    if !context.confirm("Do this?", yes)? {
        context.printer.note("nothing was changed");
        return Ok(1);
    }
    // Leftovers are ended under the lock; a running instance has none, and its files may be mended.
    let _lock = match mends.iter().any(|mend| matches!(mend, Mend::EndLeftovers)) {
        true => Some(HomeLock::take(&context.home, "leoflow doctor --fix", None)?),
        false => None,
    };
    for mend in mends {
        setup::mend(&context.home, mend).map_err(|error| Error::failed(format!("could not {mend}")).cause(error))?;
        context.printer.note(format!("done: {mend}"));
    }
    Ok(0)
}
