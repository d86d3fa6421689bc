//! Runs PostgreSQL's programs with a clean environment: `PG*` variables, `~/.pgpass` and `~/.psqlrc` configure them,
//! and none of the user's may apply.

use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::disk;
use leoflow_base::sys::process::command;
use leoflow_base::sys::process::user_namespace::Identity;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Why a program of PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("{bin} contains no {program}")]
    Missing { bin: PathBuf, program: &'static str },
    #[error("cannot run {program}: {source}{}", noexec_reason(program))]
    DoesNotRun { program: PathBuf, source: io::Error },
    #[error("{program} --version failed: {reason}")]
    Failed { program: PathBuf, reason: String },
    #[error("{program} --version printed {output:?}")]
    OtherProgram { program: PathBuf, output: String },
}

/// Builds a command with a clean environment: a path, the C locale, a temporary folder.
pub(crate) fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    for (name, value) in clean_environment() {
        command.env(name, value);
    }
    command
}

/// Variables of `clean_command`. `HOME` is a path that does not exist, so that no file of the user is read.
pub(crate) fn clean_environment() -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LC_ALL", "C".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("HOME", "/nonexistent".to_owned()),
    ];
    if let Some(folder) = env_vars::text("TMPDIR") {
        environment.push(("TMPDIR", folder));
    }
    environment
}

/// Like `clean_command`, for a program that refuses to run as this user, such as `initdb` as root.
pub(crate) fn unprivileged_command(program: &Path, identity: &Identity) -> Command {
    let mut command = clean_command(program);
    if let Some(single) = identity.single_user() {
        single.apply(&mut command);
    }
    command
}

/// Programs that are required in addition to `postgres` itself.
pub const NEEDED: &[&str] = &["initdb", "psql", "pg_dump", "pg_restore"];

/// Checks that all programs are present; the error names the first missing one.
pub fn check_complete(bin: &Path) -> Result<(), ProgramError> {
    match NEEDED.iter().find(|program| !bin.join(program).is_file()) {
        Some(program) => Err(ProgramError::Missing { bin: bin.to_owned(), program }),
        None => Ok(()),
    }
}

/// Runs `--version` of each program that the first start of a server does not run.
pub(crate) fn try_clients(bin: &Path) -> Result<(), ProgramError> {
    NEEDED.iter().filter(|name| **name != "initdb").try_for_each(|name| version_output(&bin.join(name)).map(drop))
}

/// Time limit for printing a version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Major version and version, such as `(18, "18.4")`, from `postgres --version`.
pub fn postgres_version(bin: &Path) -> Result<(u32, String), ProgramError> {
    let program = bin.join("postgres");
    let text = version_output(&program)?;
    parse_version(&text).ok_or_else(|| ProgramError::OtherProgram { program, output: text.trim().to_owned() })
}

fn version_output(program: &Path) -> Result<String, ProgramError> {
    let mut command = clean_command(program);
    let output = command::output_within(command.arg("--version"), VERSION_LIMIT)
        .map_err(|source| ProgramError::DoesNotRun { program: program.to_owned(), source })?;
    if !output.status.success() {
        let reason = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
        return Err(ProgramError::Failed { program: program.to_owned(), reason });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Explains a program that cannot run because of its mount.
fn noexec_reason(program: &Path) -> &'static str {
    match disk::forbids_programs(program) {
        true => ", because the file system there is mounted noexec; choose another home: --home DIR",
        false => "",
    }
}

/// Parses text such as `postgres (PostgreSQL) 18.4 (Debian …)`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_as_distributions_print_them() {
        assert_eq!(parse_version("postgres (PostgreSQL) 18.4\n"), Some((18, "18.4".into())));
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").unwrap().0, 15);
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1\n").unwrap().0, 19);
        assert_eq!(parse_version("mysqld 8\n"), None);
    }
}
