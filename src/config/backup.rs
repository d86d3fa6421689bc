//! The `backup` key: how many automatic backups stay, and how much goes into one.

use serde_yaml::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSettings {
    /// Automatic backups that stay, the newest.
    pub keep: u64,
    /// Bytes that they may take together.
    pub max_bytes: u64,
    /// Bytes of task logs in a backup, the newest.
    pub task_logs_bytes: u64,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self { keep: 5, max_bytes: 5 * GIB, task_logs_bytes: GIB / 4 }
    }
}

const GIB: u64 = 1024 * 1024 * 1024;
const ALLOWED: &str =
    "a mapping of keep, max_bytes and task_logs_bytes to whole numbers (keep from 1; the others in bytes)";

impl BackupSettings {
    /// From the value of the key. `Err` is what is allowed.
    pub fn read(value: &Value) -> Result<Self, &'static str> {
        let mapping = value.as_mapping().ok_or(ALLOWED)?;
        let mut settings = Self::default();
        for (key, value) in mapping {
            let number = value.as_u64().ok_or(ALLOWED)?;
            match key.as_str() {
                Some("keep") if number >= 1 => settings.keep = number,
                Some("max_bytes") => settings.max_bytes = number,
                Some("task_logs_bytes") => settings.task_logs_bytes = number,
                _ => return Err(ALLOWED),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_usual_and_what_is_wrong_is_refused() {
        let read = |text: &str| BackupSettings::read(&serde_yaml::from_str(text).unwrap());
        assert_eq!(read("{keep: 2}"), Ok(BackupSettings { keep: 2, ..BackupSettings::default() }));
        assert_eq!(read("{max_bytes: 1, task_logs_bytes: 0}").unwrap().task_logs_bytes, 0);
        for wrong in ["{keep: 0}", "{keep: many}", "{max_bytes: -1}", "{kept: 1}", "[1]", "3"] {
            assert_eq!(read(wrong), Err(ALLOWED), "{wrong}");
        }
    }
}
