//! Settings that a restore changes: it brings `config.yaml` back, but for what belongs to the machine. Pure.

use crate::config::{self, DEPRECATED, Loaded, SETTINGS};

/// Settings that a restore keeps from this machine, see [`super::restore_plan::fitted_config`].
const OF_THE_MACHINE: [&str; 7] =
    ["workspace", "port", "python", "host", "backup.recipients", "backup.passphrase", "backup.identity"];

/// A line for each setting whose value in `then`, the backup's `config.yaml`, differs from the one in `now`. None where one
/// of them is not valid.
pub fn changed_settings(now: &str, then: &str) -> Vec<String> {
    let read = |text: &str| config::parse(text, DEPRECATED).ok();
    let (Some(now), Some(then)) = (read(now), read(then)) else { return Vec::new() };
    let is_carried = |name: &str| OF_THE_MACHINE.contains(&name) || name.starts_with("datastore");
    let mut lines: Vec<String> = SETTINGS
        .iter()
        .filter(|setting| !is_carried(setting.name))
        .filter_map(|setting| {
            let value = |loaded: &Loaded| setting.value_in(loaded).unwrap_or_else(|| "the default".to_owned());
            let (now, then) = (value(&now), value(&then));
            // An address may hold a password.
            let is_shown = setting.name != "upgrade.from";
            let values = if is_shown { format!(": {now} becomes {then}") } else { " becomes what it was".to_owned() };
            (now != then).then(|| format!("setting {}{values}", setting.name))
        })
        .collect();
    if now.config.admin_password_hash != then.config.admin_password_hash {
        lines.push("the admin password becomes what it was".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_instance_are_named_and_those_of_the_machine_are_not() {
        let then = "workspace: /old\nport: 1\nadmin_password_hash: '$argon2id$a'\nupgrade: {keep_versions: 5, from: 'https://u:secret@h/'}\n";
        let now = "workspace: /new\nport: 2\nadmin_password_hash: '$argon2id$b'\nlog_level: debug\nupgrade: {keep_versions: 2}\n\
                   backup: {identity: /k, keep: 3}\n";
        let mut lines = changed_settings(now, then);
        lines.sort();
        assert_eq!(
            lines,
            [
                "setting backup.keep: 3 becomes the default",
                "setting log_level: debug becomes the default",
                "setting upgrade.from becomes what it was",
                "setting upgrade.keep_versions: 2 becomes 5",
                "the admin password becomes what it was",
            ]
        );
        assert!(changed_settings(now, now).is_empty() && changed_settings("port: [", then).is_empty());
    }
}
