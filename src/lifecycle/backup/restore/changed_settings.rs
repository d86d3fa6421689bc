//! Lists the settings that a restore changes: it replaces `config.yaml` except for settings of this machine. Pure.

use super::restore_plan::PROTECTED;
use leoflow_base::config::{self, DEPRECATED, Loaded, SETTINGS};

/// Settings that a restore keeps from this machine, see [`super::restore_plan::adapted_config`].
const MACHINE_SETTINGS: [&str; 4] = ["workspace", "port", "python", "host"];

/// Describes the settings whose value in `backup`, the backup's `config.yaml`, differs from that in `current`; empty if
/// either file is invalid.
pub fn changed_settings(current: &str, backup: &str) -> Vec<String> {
    let read = |text: &str| config::parse(&config::with_new_names(text).ok()?, DEPRECATED).ok();
    let (Some(current), Some(backup)) = (read(current), read(backup)) else { return Vec::new() };
    let is_machine_setting = |name: &str| {
        MACHINE_SETTINGS.iter().chain(&PROTECTED).any(|kept| *kept == name) || name.starts_with("datastore")
    };
    let mut lines: Vec<String> = SETTINGS
        .iter()
        .filter(|setting| !is_machine_setting(setting.name))
        .filter_map(|setting| {
            let value = |loaded: &Loaded| setting.value_in(loaded).unwrap_or_else(|| "the default".to_owned());
            let (now, after) = (value(&current), value(&backup));
            (now != after).then(|| format!("setting {}: {now} becomes {after}", setting.name))
        })
        .collect();
    if current.config.admin_password_hash != backup.config.admin_password_hash {
        lines.push("the admin password reverts to that of the backup".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_instance_settings_only() {
        let backup_text = "workspace: /old\nport: 1\nadmin_password_hash: '$argon2id$a'\nupgrade: {keep_versions: 5, from: 'https://u:secret@h/'}\n";
        let current_text = "workspace: /new\nport: 2\nadmin_password_hash: '$argon2id$b'\nlog_level: debug\nupgrade: {keep_versions: 2}\n\
                   backup: {identity: /k, keep: 3}\n";
        let mut lines = changed_settings(current_text, backup_text);
        lines.sort();
        assert_eq!(
            lines,
            [
                "setting backup.keep: 3 becomes the default",
                "setting log_level: debug becomes the default",
                "setting upgrade.keep_versions: 2 becomes 5",
                "the admin password reverts to that of the backup",
            ]
        );
        assert!(
            changed_settings(current_text, current_text).is_empty()
                && changed_settings("port: [", backup_text).is_empty()
        );
    }
}
