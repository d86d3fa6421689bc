//! Runs launchctl for the agents of this user: launchctl(1).

use super::manager::{QUICK_LIMIT, START_LIMIT, Unavailable, checked, output_of, reachable};
use leoflow_base::home::Home;
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::user;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Interval of checks of a service that starts or ends.
const PAUSE: Duration = Duration::from_millis(100);

/// launchd's name of the services of this user's graphical session.
fn domain() -> String {
    format!("gui/{}", user::effective_uid())
}

fn target(label: &str) -> String {
    format!("{}/{label}", domain())
}

fn run(arguments: &[&str], limit: Duration) -> Result<Output, Unavailable> {
    let mut command = Command::new("launchctl");
    command.args(arguments);
    output_of(command, limit)
}

fn run_checked(arguments: &[&str], limit: Duration) -> Result<(), Unavailable> {
    checked(run(arguments, limit)?, || format!("launchctl {}", arguments.join(" ")))
}

/// Checks that this user has a graphical session, whose services launchd runs.
pub(super) fn check() -> Result<(), Unavailable> {
    reachable("launchctl", &run(&["print", &domain()], QUICK_LIMIT)?)
}

/// True when a user has disabled the service, which outlives its file.
pub(super) fn is_disabled(label: &str) -> Result<bool, Unavailable> {
    let output = run(&["print-disabled", &domain()], QUICK_LIMIT)?;
    Ok(is_disabled_in(&String::from_utf8_lossy(&output.stdout), label))
}

/// Lines are `"LABEL" => disabled`, or `true` before macOS 13.
fn is_disabled_in(text: &str, label: &str) -> bool {
    let quoted = format!("\"{label}\"");
    let value = |line: &str| Some(line.trim().strip_prefix(&quoted)?.trim().strip_prefix("=>")?.trim().to_owned());
    text.lines().find_map(value).is_some_and(|value| matches!(value.as_str(), "disabled" | "true"))
}

pub(super) fn enable(label: &str) -> Result<(), Unavailable> {
    run_checked(&["enable", &target(label)], QUICK_LIMIT)
}

fn is_loaded(label: &str) -> Result<bool, Unavailable> {
    Ok(run(&["print", &target(label)], QUICK_LIMIT)?.status.success())
}

/// Ends the service if it runs, and waits until launchd knows it no more: a service that is ending cannot be loaded.
fn unload(label: &str) -> Result<(), Unavailable> {
    let deadline = Instant::now() + START_LIMIT;
    if !is_loaded(label)? {
        return Ok(());
    }
    // It fails while the service is ending, too.
    let output = run(&["bootout", &target(label)], START_LIMIT)?;
    while is_loaded(label)? {
        if Instant::now() > deadline {
            return checked(output, || format!("launchctl bootout {}", target(label)));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

pub(super) fn unload_unless_running(label: &str) -> Result<(), Unavailable> {
    if main_pid(label)?.is_none() { unload(label) } else { Ok(()) }
}

/// Starts or restarts the service by loading its file anew; returns when Leoflow is ready.
pub(super) fn start(label: &str, file: &Path, home: &Home) -> Result<(), Unavailable> {
    unload(label)?;
    let command = ["bootstrap", &domain(), &file.to_string_lossy()];
    let failed = |output: String| Unavailable::Failed { command: format!("launchctl {}", command.join(" ")), output };
    bootstrap(&command)?;
    // launchd does not wait until a service is ready.
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        let state = control::status_of(home).map(|status| status.state);
        if matches!(state, Some(InstanceState::Healthy | InstanceState::Damaged)) {
            return Ok(());
        }
        if let Some(code) =
            exit_code_in(&String::from_utf8_lossy(&run(&["print", &target(label)], QUICK_LIMIT)?.stdout))
        {
            return Err(failed(format!("Leoflow could not start: exit code {code}")));
        }
        thread::sleep(PAUSE);
    }
    Err(failed(format!("Leoflow was not ready within {} s", START_LIMIT.as_secs())))
}

/// Loads a service. For some seconds after `bootout`, launchd may still refuse with exit code 5, an input/output error.
fn bootstrap(command: &[&str]) -> Result<(), Unavailable> {
    let deadline = Instant::now() + QUICK_LIMIT;
    loop {
        let output = run(command, QUICK_LIMIT)?;
        if output.status.code() != Some(5) || Instant::now() > deadline {
            return checked(output, || format!("launchctl {}", command.join(" ")));
        }
        thread::sleep(PAUSE);
    }
}

/// Main process of the service; `None` when it is not running.
pub(super) fn main_pid(label: &str) -> Result<Option<i32>, Unavailable> {
    let output = run(&["print", &target(label)], QUICK_LIMIT)?;
    Ok(pid_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The exit code of a service that has ended since it was loaded.
fn exit_code_in(text: &str) -> Option<i32> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("last exit code = "))?;
    value.split(':').next()?.parse().ok()
}

/// The first `pid = 12`, which is that of the service.
fn pid_in(text: &str) -> Option<i32> {
    text.lines().find_map(|line| line.trim().strip_prefix("pid = ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{exit_code_in, is_disabled_in, pid_in};

    #[test]
    fn reads_what_launchctl_prints() {
        assert_eq!(pid_in("gui/501/x = {\n\tactive count = 1\n\tpid = 815\n}\n"), Some(815));
        assert_eq!(pid_in("gui/501/x = {\n\tstate = not running\n\tlast exit code = 0\n}\n"), None);
        for (line, expected) in [("78: EX_CONFIG", Some(78)), ("0", Some(0)), ("(never exited)", None)] {
            assert_eq!(exit_code_in(&format!("gui/501/x = {{\n\tlast exit code = {line}\n}}\n")), expected);
        }
        let text = "disabled services = {\n\t\"a.b\" => disabled\n\t\"a\" => enabled\n\t\"old\" => true\n}\n";
        for (label, expected) in [("a.b", true), ("a", false), ("old", true), ("b", false)] {
            assert_eq!(is_disabled_in(text, label), expected, "{label}");
        }
    }
}
