//! Installs the packages of a lock with `uv pip sync`.

use super::installed::program;
use super::lock::Lock;
use super::pins;
use super::uv::{Call, Uv};
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::fs::files;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Time limit for downloads of gigabytes and for compiling.
pub(super) const INSTALL_LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn text_lines(texts: &[String]) -> String {
    texts.iter().map(|line| format!("{line}\n")).collect()
}

/// Installs the packages: first offline from the cache, then from the index.
pub(super) fn install(
    uv: &Uv,
    lock: &Lock,
    staging: &Path,
    tree: &Path,
    reporter: &dyn Reporter,
) -> Result<(), String> {
    if lock.packages().is_empty() {
        return Ok(());
    }
    let locked = staging.join("lock.txt");
    let index = &lock.declared.index;
    let text = text_lines(&index.lines()) + &lock.text;
    files::write_atomic(&locked, text.as_bytes(), 0o600).map_err(|error| format!("{}: {error}", locked.display()))?;
    // A git address has no files with hashes; the lock pins its commit instead.
    let hashes = if pins::pins_by_commit(&lock.text) { "--verify-hashes" } else { "--require-hashes" };
    // `unsafe-best-match` is safe with hashes: a file must match its hash, whichever index has it.
    let mut arguments: Vec<OsString> =
        ["pip", "sync", hashes, "--index-strategy", "unsafe-best-match", "--python"].map(Into::into).into();
    arguments.extend([program(tree).into(), locked.into()]);
    arguments.extend(index.arguments());
    let variables = &lock.declared.variables;
    let environment = index.environment(variables).and_then(|index_variables| {
        let named_variables = variables.required([&text])?;
        Ok(index_variables.into_iter().chain(named_variables).collect::<Vec<_>>())
    });
    // All files may be in the cache already: then it does not matter that a variable is not set any more.
    let offline_arguments = arguments.iter().cloned().chain(["--offline".into()]).collect();
    let offline_call = Call {
        arguments: offline_arguments,
        limit: INSTALL_LIMIT,
        environment: environment.clone().unwrap_or_default(),
        variables,
    };
    if uv.run(&offline_call, reporter).is_ok() {
        return Ok(());
    }
    let call = Call { arguments, limit: INSTALL_LIMIT, environment: environment?, variables };
    uv.run(&call, reporter).map_err(|failure| failure.message)
}
