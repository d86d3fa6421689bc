//! `leoflow init --vscode`: files for VS Code in a project's folder. A file that the user may
//! have changed stays as it is.

use crate::commands::engine::env;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::fs::{files, folders};
use std::path::{Path, PathBuf};

/// Changes with the release, and is not for the user to edit.
const SCHEMA: &str = "leoflow.schema.json";
/// Each file of `.vscode`, with its text.
const FILES: [(&str, &str); 3] = [
    ("settings.json", include_str!("settings.json")),
    ("launch.json", include_str!("launch.json")),
    (SCHEMA, include_str!("../../../../../docs/reference/leoflow.schema.json")),
];
/// Bytes; VS Code's own limit is larger.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// Writes the files and makes `.venv`; returns the files that it has written.
pub async fn write(context: &Context<'_>, project: &Path) -> Result<Vec<PathBuf>, Error> {
    let venv = env::link::make(context, project).await?;
    context.printer.note(format!("{} leads to the project's environment", venv.display()));
    let mut written = Vec::new();
    let folder = project.join(".vscode");
    folders::create_all(&folder).map_err(Error::cannot("write", &folder))?;
    for (name, text) in FILES {
        let path = folder.join(name);
        match files::read_text(&path, SIZE_LIMIT).map_err(Error::cannot("read", &path))? {
            Some(existing) if existing == text => {}
            Some(_) if name != SCHEMA => {
                context
                    .printer
                    .note(format!("{} exists and stays as it is. Add what you miss of:\n{text}", path.display()));
            }
            Some(_) | None => {
                files::write_atomic(&path, text.as_bytes(), 0o644).map_err(Error::cannot("write", &path))?;
                context.printer.note(format!("Wrote {}", path.display()));
                written.push(path);
            }
        }
    }
    Ok(written)
}
