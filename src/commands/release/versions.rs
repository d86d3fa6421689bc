//! `leoflow versions`: the releases that are kept.

use crate::commands::context::Context;
use crate::error::Error;
use crate::upgrade::{history, versions};
use serde_json::json;

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let all = versions::list(&context.home);
    if context.printer.json {
        context.printer.json(&json!({"versions": all, "history": history::history(&context.home)}))?;
        return Ok(0);
    }
    if all.is_empty() {
        context.printer.line("No version is installed; `leoflow setup` installs this one");
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|kept| {
            vec![
                kept.version.to_string(),
                if kept.current { "in use".to_owned() } else { String::new() },
                kept.schema_version.map_or_else(|| "?".to_owned(), |schema| format!("{schema:04}")),
                format!("{:.1} MB", kept.size_bytes as f64 / 1e6),
            ]
        })
        .collect();
    context.printer.table(&["VERSION", "", "SCHEMA", "SIZE"], &rows);
    Ok(0)
}
