//! Opens an address in the user's browser.

use super::blocking;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long the command may take to fail. One that still runs then is a browser that stays in the foreground.
const START_LIMIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The command that opens an address: the first one in `BROWSER` (separated by colons), else the
/// desktop's own. `None` for an empty `BROWSER`; without `BROWSER`, `None` over SSH and without a desktop, where a
/// browser would appear on no screen or on another one.
pub fn command(variable: impl Fn(&str) -> Option<String>) -> Option<Vec<String>> {
    if let Some(browser) = variable("BROWSER") {
        let words: Vec<String> = browser.split(':').next()?.split_whitespace().map(str::to_owned).collect();
        return (!words.is_empty()).then_some(words);
    }
    if variable("SSH_CONNECTION").is_some() || variable("SSH_TTY").is_some() {
        return None;
    }
    if cfg!(target_os = "macos") {
        return Some(vec!["open".to_owned()]);
    }
    let has_desktop = variable("DISPLAY").is_some() || variable("WAYLAND_DISPLAY").is_some();
    has_desktop.then(|| vec!["xdg-open".to_owned()])
}

/// Starts the command with the address, which replaces `%s` or is appended. Returns false when it cannot be started or
/// fails at once.
pub fn open(command: &[String], url: &str) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let mut arguments: Vec<String> = arguments.to_vec();
    match arguments.iter_mut().find(|argument| argument.contains("%s")) {
        Some(argument) => *argument = argument.replace("%s", url),
        None => arguments.push(url.to_owned()),
    }
    let started =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = started else { return false };
    let ended = blocking::poll(START_LIMIT, POLL_INTERVAL, || child.try_wait().transpose());
    ended.is_none_or(|status| status.is_ok_and(|status| status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_of(variables: &[(&str, &str)]) -> Option<String> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        command(find).map(|words| words.join(" "))
    }

    #[test]
    fn the_browser_variable_comes_first() {
        let variables = [("BROWSER", "firefox --new-tab:chromium"), ("SSH_CONNECTION", "x")];
        assert_eq!(command_of(&variables).as_deref(), Some("firefox --new-tab"));
        assert_eq!(command_of(&[("BROWSER", ":")]), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_desktop_of_this_machine_is_needed() {
        assert_eq!(command_of(&[("DISPLAY", ":0")]).as_deref(), Some("xdg-open"));
        assert_eq!(command_of(&[("WAYLAND_DISPLAY", "wayland-0")]).as_deref(), Some("xdg-open"));
        assert_eq!(command_of(&[]), None);
        assert_eq!(command_of(&[("DISPLAY", "localhost:10.0"), ("SSH_CONNECTION", "a b c d")]), None);
    }

    #[test]
    fn a_command_that_fails_has_opened_nothing() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(open(&words("true"), "http://127.0.0.1"));
        assert!(!open(&words("false"), "http://127.0.0.1"));
        assert!(!open(&words("/no/such/browser"), "http://127.0.0.1"));
        assert!(open(&words("test %s = http://127.0.0.1"), "http://127.0.0.1"));
    }
}
