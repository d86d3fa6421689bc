//! `leoflow config` for `backup.invariants`: each query is checked against the datastore before it is written.

use super::config_file::{load, warn_if_overridden, write_error};
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_base::config::{self, BackupSettings, Invariant, Setting};
use leoflow_lifecycle::backup::invariants;
use leoflow_postgres::invariants::Answer;
use serde_json::json;

/// The key of the whole mapping.
pub const KEY: &str = "backup.invariants";

/// The name in a key `backup.invariants.NAME`.
pub fn name_in(key: &str) -> Option<&str> {
    key.strip_prefix(KEY)?.strip_prefix('.')
}

/// Prints one query.
pub fn get(context: &Context<'_>, name: &str) -> Result<u8, Error> {
    let all = load(context)?.config.backup.invariants;
    let query = all.iter().find(|invariant| invariant.name == name).map(|invariant| &invariant.query);
    let key = format!("{KEY}.{name}");
    match (context.printer.json, query) {
        (true, query) => context.printer.json(&json!({"key": key, "value": query, "default": null, "origin": null}))?,
        (false, Some(query)) => context.printer.line(query),
        (false, None) => context.printer.note(format!("{key} is not set")),
    }
    Ok(0)
}

/// Sets one query, or removes it with `None`.
pub async fn change(context: &Context<'_>, setting: &Setting, name: &str, query: Option<&str>) -> Result<u8, Error> {
    let key = format!("{KEY}.{name}");
    if !Invariant::is_name(name) {
        let text = "the name of an invariant consists of at most 100 letters, digits, blanks, - and _";
        return Err(Error::usage(format!("{name:?}: {text}")));
    }
    let answer = match query {
        Some(query) => {
            let invariant = Invariant { name: name.to_owned(), query: query.to_owned() };
            Some(check(&open_datastore(context).await?, &invariant).await?)
        }
        None => None,
    };
    config::rewrite(&context.home, |text| setting.set_entry(text, name, query))
        .map_err(|error| write_error(&key, error))?;
    if context.printer.json {
        context.printer.json(&json!({"key": key, "value": query, "answer": answer.map(|answer| answer.answer)}))?;
    } else {
        match answer {
            Some(answer) => {
                let answer = answer.answer.as_deref().unwrap_or("NULL").to_owned();
                context.printer.line(format!("Set {key}; its answer is now {answer}"));
            }
            None => context.printer.line(format!("Removed {key}")),
        }
    }
    warn_if_overridden(context, KEY)?;
    Ok(0)
}

/// Checks every query of `mapping`, a YAML text. Ignores other values, which the check of config.yaml rejects.
pub async fn check_mapping(context: &Context<'_>, mapping: &str) -> Result<(), Error> {
    let Ok(value) = serde_yaml::from_str::<serde_yaml::Value>(mapping) else { return Ok(()) };
    let backup = serde_yaml::Value::Mapping([("invariants".into(), value)].into_iter().collect());
    let all = BackupSettings::read(&backup).map(|settings| settings.invariants).unwrap_or_default();
    if all.is_empty() {
        return Ok(());
    }
    let datastore = open_datastore(context).await?;
    for invariant in &all {
        check(&datastore, invariant).await?;
    }
    Ok(())
}

async fn open_datastore(context: &Context<'_>) -> Result<Datastore, Error> {
    let datastore = Datastore::open(&context.recovery(), "leoflow config set").await?;
    // Connecting creates the role and the database where they are missing.
    drop(datastore.connect().await?);
    Ok(datastore)
}

/// Checks a query and returns its answer.
async fn check(datastore: &Datastore, invariant: &Invariant) -> Result<Answer, Error> {
    let checked = invariants::check(&datastore.access, &datastore.access.application(), invariant).await?;
    checked.map_err(|reason| {
        Error::usage(format!("{KEY}.{} cannot be used: {reason}", invariant.name))
            .hint("an invariant is a SELECT of one value that only the data of a backup can change")
            .hint("try a query: leoflow lite psql -- -c 'SELECT count(*) FROM dag_run'")
    })
}
