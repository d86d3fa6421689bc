//! Installs the packages of a lock with `uv pip sync`.

use super::error::EnvironmentError;
use super::installed::program;
use super::lock::Lock;
use super::pins;
use super::uv::{Call, Uv};
use crate::io_error::io;
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::fs::files;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Time limit for downloads of gigabytes and for compiling.
pub(super) const INSTALL_LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn text_lines<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(|line| format!("{line}\n")).collect()
}

/// Installs the packages: first offline from the cache, then from the index.
pub(super) fn install(
    uv: &Uv,
    lock: &Lock,
    staging: &Path,
    tree: &Path,
    reporter: &dyn Reporter,
) -> Result<(), EnvironmentError> {
    if lock.packages().is_empty() {
        return Ok(());
    }
    let locked = staging.join("lock.txt");
    let index = &lock.declared.index;
    let text = text_lines(&index.lines()) + &lock.text;
    files::write_atomic(&locked, text.as_bytes(), 0o600).map_err(io(locked.display()))?;
    // A git address has no files with hashes; the lock pins its commit instead.
    let hashes = if pins::pins_by_commit(&lock.text) { "--verify-hashes" } else { "--require-hashes" };
    // `unsafe-best-match` is safe with hashes: a file must match its hash, whichever index has it.
    let mut arguments: Vec<OsString> =
        ["pip", "sync", hashes, "--index-strategy", "unsafe-best-match", "--python"].map(Into::into).into();
    arguments.extend([program(tree).into(), locked.into()]);
    arguments.extend(index.arguments());
    let variables = &lock.declared.variables;
    let environment = || index.environment(variables, [&text]);
    let run =
        |arguments, environment| uv.run(&Call { arguments, limit: INSTALL_LIMIT, environment, variables }, reporter);
    // All files may be in the cache already: then it does not matter that a variable is not set any more.
    let offline_arguments = arguments.iter().cloned().chain(["--offline".into()]).collect();
    if run(offline_arguments, environment().unwrap_or_default()).is_ok() {
        return Ok(());
    }
    Ok(run(arguments, environment()?)?)
}
