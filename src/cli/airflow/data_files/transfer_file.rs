//! Import and export files: `-` means stdin or stdout; an export is written atomically with mode 0600.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::fs::files;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Size limit of an import file or of stdin, in bytes; the server's limit is higher, because a request is longer than
/// its file.
const LIMIT: u64 = 64 * 1024 * 1024;

/// Reads JSON from a file, or from stdin for `-`.
pub fn read_json(path: &Path) -> Result<Value, Error> {
    let text = if path == Path::new("-") {
        stdin()?
    } else {
        let text = files::read_text(path, LIMIT).map_err(Error::cannot("read", path))?;
        text.ok_or_else(|| Error::failed(format!("{} does not exist", path.display())))?
    };
    serde_json::from_str(&text).map_err(|error| {
        Error::failed(format!("{} is not JSON", path.display())).cause(error).hint("nothing was imported")
    })
}

/// Writes JSON to a file, or to stdout for `-`.
pub fn write_json(context: &Context<'_>, path: &Path, value: &Value) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(Error::bug)?;
    text.push('\n');
    if path == Path::new("-") {
        context.printer.raw(&text);
        return Ok(());
    }
    // The file contains secrets.
    files::write_atomic(path, text.as_bytes(), 0o600).map_err(Error::cannot("write", path))?;
    context.printer.warn_if_readable_by_others(path);
    Ok(())
}

/// Returns `value`, or for `-` the text of stdin without its last newline.
pub fn value_or_stdin(value: &str) -> Result<String, Error> {
    if value != "-" {
        return Ok(value.to_owned());
    }
    let text = stdin()?;
    let trimmed = text.strip_suffix('\n').map_or(text.as_str(), |rest| rest.strip_suffix('\r').unwrap_or(rest));
    Ok(trimmed.to_owned())
}

fn stdin() -> Result<String, Error> {
    let mut text = String::new();
    std::io::stdin().lock().take(LIMIT + 1).read_to_string(&mut text).map_err(Error::failed)?;
    if text.len() as u64 > LIMIT {
        return Err(Error::failed(format!("stdin has more than {} MiB", LIMIT >> 20)).hint("nothing was changed"));
    }
    Ok(text)
}
