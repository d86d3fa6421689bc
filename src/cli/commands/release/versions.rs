//! `leoflow versions`: lists the releases in `versions/`.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_lifecycle::upgrade::release::versions;
use leoflow_lifecycle::upgrade::rollback::history;
use serde_json::json;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow versions\n  leoflow versions --json")]
pub struct Versions {}

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let folder = context.home.versions();
    let releases = versions::list(&context.home).map_err(Error::cannot("read", &folder))?;
    if context.printer.json {
        context.printer.json(&json!({"versions": releases, "history": history::history(&context.home)}))?;
        return Ok(0);
    }
    if releases.is_empty() {
        context.printer.advice("No releases installed. Install this one with `leoflow setup`.");
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = releases
        .iter()
        .map(|release| {
            vec![
                release.version.to_string(),
                if release.current { "in use".to_owned() } else { String::new() },
                release.schema_version.map_or_else(|| "?".to_owned(), |schema| format!("{schema:04}")),
                format!("{:.1} MB", release.size_bytes as f64 / 1e6),
            ]
        })
        .collect();
    context.printer.table(&["VERSION", "STATUS", "SCHEMA", "SIZE"], &rows);
    Ok(0)
}
