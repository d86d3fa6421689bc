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
    let value = json!({"versions": releases, "history": history::history(&context.home)});
    context.printer.show(&value, |printer| {
        if releases.is_empty() {
            return printer.advice("No releases installed. Install this one with `leoflow setup`.");
        }
        let rows = releases.iter().map(|release| {
            [
                release.version.to_string(),
                if release.current { "in use".to_owned() } else { String::new() },
                release.schema_version.map_or_else(|| "?".to_owned(), |schema| format!("{schema:04}")),
                format!("{:.1} MB", release.size_bytes as f64 / 1e6),
            ]
        });
        printer.table(&["VERSION", "STATUS", "SCHEMA", "SIZE"], rows);
    })
}
