//! `run/in-force.json`: the settings that the running server has begun with, of those that a process takes when it begins.

use super::settings::{SETTINGS, Setting};
use super::{Loaded, Origin};
use crate::home::Home;
use crate::sys::files;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

/// By setting. One that a variable said is what only processes with that variable can tell again, and is left out.
type Values = BTreeMap<String, Option<String>>;

const SIZE_LIMIT: u64 = 64 * 1024;

/// Where it serves is the supervisor's.
fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.needs_restart && !["port", "host"].contains(&setting.name))
}

fn values(loaded: &Loaded) -> Values {
    let is_of_file = |setting: &&Setting| !is_of_variable(loaded, setting.name);
    let value = |setting: &Setting| {
        // A default that is written out is the same.
        setting.value_in(loaded).or_else(|| setting.is_value.then(|| setting.default.to_owned()))
    };
    settings().filter(is_of_file).map(|setting| (setting.name.to_owned(), value(setting))).collect()
}

pub fn note(home: &Home, loaded: &Loaded) -> io::Result<()> {
    files::write_atomic(&home.in_force(), &serde_json::to_vec(&values(loaded))?, 0o600)
}

/// Where the supervisor listens, which a restart of its children does not change. Nothing where a variable says so.
pub fn note_host(home: &Home, host: Ipv4Addr, loaded: &Loaded) -> io::Result<()> {
    match is_of_variable(loaded, "host") {
        true => files::remove_any(&home.host()),
        false => files::write_atomic(&home.host(), host.to_string().as_bytes(), 0o600),
    }
}

/// `None` where it was not written down.
pub fn host(home: &Home) -> Option<Ipv4Addr> {
    files::read_text(&home.host(), 64).ok()??.trim().parse().ok()
}

pub fn is_of_variable(loaded: &Loaded, setting: &str) -> bool {
    matches!(loaded.origins.get(setting), Some(Origin::Variable(_)))
}

/// Those that are another now than when the server began. None where that is not known.
pub fn changed_since(home: &Home, loaded: &Loaded) -> Vec<&'static str> {
    let text = files::read_text(&home.in_force(), SIZE_LIMIT).ok().flatten();
    let Some(then) = text.and_then(|text| serde_json::from_str::<Values>(&text).ok()) else { return Vec::new() };
    let now = values(loaded);
    let is_changed = |name: &&str| then.get(*name).zip(now.get(*name)).is_some_and(|(then, now)| then != now);
    settings().map(|setting| setting.name).filter(is_changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_was_changed_since_the_start_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let loaded = |text: &str| parse(text, &[]).unwrap();
        assert!(changed_since(&home, &loaded("log_level: debug\n")).is_empty(), "nobody has begun");
        note(&home, &loaded("python: /p\nport: 1\n")).unwrap();
        assert!(changed_since(&home, &loaded("python: /p\nlog_level: info\nport: 2\nadmin_email: a@b\n")).is_empty());
        assert_eq!(changed_since(&home, &loaded("log_level: debug\n")), ["python", "log_level"]);
    }
}
