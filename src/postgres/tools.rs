//! Running PostgreSQL's programs with an environment of our own: theirs is configured by `PG*`
//! variables, `~/.pgpass` and `~/.psqlrc`, and none of the user's may reach them.

use crate::sys::user_namespace::Identity;
use crate::sys::{command, env_vars};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A command with a clean environment: a path, the C locale, a temporary folder, nothing else.
pub fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    for (name, value) in clean_environment() {
        command.env(name, value);
    }
    command
}

/// What `clean_command` sets. `HOME` points nowhere, so that no file of the user's is read.
pub fn clean_environment() -> Vec<(&'static str, String)> {
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

/// As `clean_command`, for the programs that refuse root: `postgres` and `initdb`.
pub fn unprivileged_command(program: &Path, identity: &Identity) -> Command {
    let mut command = clean_command(program);
    if let Some(single) = identity.single_user() {
        single.apply(&mut command);
    }
    command
}

/// The programs that we call beside `postgres` itself.
pub const NEEDED: &[&str] = &["initdb", "psql", "pg_dump", "pg_restore"];

/// `Err` names the first program that is missing.
pub fn complete(bin: &Path) -> Result<(), String> {
    match NEEDED.iter().find(|program| !bin.join(program).is_file()) {
        Some(missing) => Err(format!("{} has no {missing}", bin.display())),
        None => Ok(()),
    }
}

/// Runs those that no first start runs. `Err` is what the first one that does not run says.
pub fn try_clients(bin: &Path) -> Result<(), String> {
    NEEDED.iter().filter(|name| **name != "initdb").try_for_each(|name| asked_version(&bin.join(name)).map(drop))
}

/// Longer than any program takes to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// `(major, "18.4")` as `postgres --version` says, or what went wrong.
pub fn postgres_version(bin: &Path) -> Result<(u32, String), String> {
    let program = bin.join("postgres");
    let text = asked_version(&program)?;
    parse_version(&text).ok_or_else(|| format!("{} says {:?} of itself", program.display(), text.trim()))
}

fn asked_version(program: &Path) -> Result<String, String> {
    let mut command = clean_command(program);
    let output = command::output_within(command.arg("--version"), VERSION_LIMIT)
        .map_err(|error| format!("{} does not run: {error}", program.display()))?;
    if !output.status.success() {
        let reason = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
        return Err(format!("{} --version failed: {reason}", program.display()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// From `postgres (PostgreSQL) 18.4 (Debian …)`.
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
