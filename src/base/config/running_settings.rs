//! `run/in-force.json`: the values at the server's start of the settings that take effect only after a restart; and
//! `run/host`: the address on which the supervisor listens.

use super::settings::{SETTINGS, Setting};
use super::{Loaded, Origin};
use crate::home::Home;
use crate::sys::fs::files;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

/// Value by setting name. Values from environment variables are left out: only processes with that variable could
/// compare them.
type Values = BTreeMap<String, Option<String>>;

const SIZE_LIMIT: u64 = 64 * 1024;

/// Settings that the server reads at its start. Leaves out port and host, which belong to the supervisor.
fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.needs_restart && !["port", "host"].contains(&setting.name))
}

fn values(loaded: &Loaded) -> Values {
    let is_from_file = |setting: &&Setting| !is_from_variable(loaded, setting.name);
    let value = |setting: &Setting| {
        // An unset value equals its default, so writing the default into the file changes nothing.
        setting.value_in(loaded).or_else(|| setting.is_value.then(|| setting.default.to_owned()))
    };
    settings().filter(is_from_file).map(|setting| (setting.name.to_owned(), value(setting))).collect()
}

/// Records the values at the start of the server.
pub fn record(home: &Home, loaded: &Loaded) -> io::Result<()> {
    files::write_atomic(&home.running_settings(), &serde_json::to_vec(&values(loaded))?, 0o600)
}

/// Records the address that the supervisor listens on; a restart of its children does not change it. Removes the record
/// if an environment variable sets the address.
pub fn record_host(home: &Home, host: Ipv4Addr, loaded: &Loaded) -> io::Result<()> {
    match is_from_variable(loaded, "host") {
        true => files::remove_any(&home.host()),
        false => files::write_atomic(&home.host(), host.to_string().as_bytes(), 0o600),
    }
}

/// Reads the recorded address; `None` if there is none.
pub fn recorded_host(home: &Home) -> Option<Ipv4Addr> {
    files::read_text(&home.host(), 64).ok()??.trim().parse().ok()
}

/// True when an environment variable sets the value.
pub fn is_from_variable(loaded: &Loaded, setting: &str) -> bool {
    matches!(loaded.origins.get(setting), Some(Origin::Variable(_)))
}

/// Returns the settings that differ from those at the server's start; empty if these are unknown.
pub fn changed_since(home: &Home, loaded: &Loaded) -> Vec<&'static str> {
    let recorded = files::read_json::<Values>(&home.running_settings(), SIZE_LIMIT);
    let Ok(Some(recorded)) = recorded else { return Vec::new() };
    let current = values(loaded);
    let is_changed = |name: &&str| recorded.get(*name).zip(current.get(*name)).is_some_and(|(old, new)| old != new);
    settings().map(|setting| setting.name).filter(is_changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn lists_settings_changed_since_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let loaded = |text: &str| parse(text, &[]).unwrap();
        assert!(changed_since(&home, &loaded("log_level: debug\n")).is_empty(), "no server has started");
        record(&home, &loaded("python: /p\nport: 1\n")).unwrap();
        assert!(changed_since(&home, &loaded("python: /p\nlog_level: info\nport: 2\nadmin_email: a@b\n")).is_empty());
        assert_eq!(changed_since(&home, &loaded("log_level: debug\n")), ["python", "log_level"]);
    }
}
