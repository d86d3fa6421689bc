//! The `history` key: how long finished runs and task logs are kept. By default they are kept for ever.

use super::keys::{ValueError, count, field};
use serde_yaml::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// Which runs are kept.
    pub runs: Retention,
    /// Removes runs only if a test-restored backup holds them.
    pub archive: bool,
    /// Task logs that were last written more than this many days ago are removed.
    pub task_logs_days: Option<u64>,
    /// Maximum total size of task logs in bytes; the oldest are removed.
    pub task_logs_bytes: Option<u64>,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { runs: Retention::default(), archive: true, task_logs_days: None, task_logs_bytes: None }
    }
}

/// Which finished runs of a DAG are kept. With both limits, a run is kept if one of them keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Keeps runs that ended at most this many days ago.
    pub keep_days: Option<u64>,
    /// Keeps the newest runs, this many.
    pub keep_runs: Option<u64>,
}

impl Retention {
    /// True if runs are removed at all.
    pub fn is_set(self) -> bool {
        self.keep_days.is_some() || self.keep_runs.is_some()
    }
}

const ALLOWED: &str =
    "a mapping of keep_days, keep_runs, archive, task_logs_days and task_logs_bytes, see `leoflow config list`";
const COUNT: &str = "a whole number of at least 1, or off";
const ARCHIVE: &str = "on or off";

/// Reads a limit; `off` is no limit.
fn limit(value: &Value) -> Option<Option<u64>> {
    match value {
        Value::String(text) if text == "off" => Some(None),
        // YAML 1.1 writes `off` as false.
        Value::Bool(false) => Some(None),
        _ => count(value).map(Some),
    }
}

fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        _ => ["off", "on"].iter().position(|word| value == *word).map(|index| index == 1),
    }
}

impl HistorySettings {
    pub(crate) const KEYS: &[&str] = &["keep_days", "keep_runs", "archive", "task_logs_days", "task_logs_bytes"];

    /// True if anything is removed.
    pub fn is_set(&self) -> bool {
        self.runs.is_set() || self.task_logs_days.is_some() || self.task_logs_bytes.is_some()
    }

    /// Parses the value of the key; `Err` describes the allowed values.
    pub fn read(value: &Value) -> Result<Self, ValueError> {
        let mapping = value.as_mapping().ok_or(ALLOWED)?;
        let limit_of = |name| Ok::<_, ValueError>(field(mapping, name, COUNT, limit)?.flatten());
        Ok(Self {
            runs: Retention { keep_days: limit_of("keep_days")?, keep_runs: limit_of("keep_runs")? },
            archive: field(mapping, "archive", ARCHIVE, switch)?.unwrap_or(true),
            task_logs_days: limit_of("task_logs_days")?,
            task_logs_bytes: limit_of("task_logs_bytes")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_kept_unless_a_limit_is_set() {
        let read = |text: &str| HistorySettings::read(&serde_yaml::from_str(text).unwrap());
        assert!(!read("{}").unwrap().is_set());
        assert!(!read("{keep_days: off, task_logs_bytes: false, archive: on}").unwrap().is_set());
        let set = read("{keep_days: 90, keep_runs: 10, archive: off}").unwrap();
        assert_eq!(set.runs, Retention { keep_days: Some(90), keep_runs: Some(10) });
        assert!(set.is_set() && !set.archive && read("{task_logs_days: 3}").unwrap().archive);
        for wrong in
            ["{keep_days: 0}", "{keep_runs: -1}", "{task_logs_days: 1.5}", "{archive: maybe}", "{keep_days: 7d}", "3"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
