//! The `upgrade` key: channel and source of releases, and retention after an upgrade.

use super::cadence::duration;
use super::keys::{ValueError, count, field};
use serde_yaml::Value;
use std::time::Duration;

crate::words! {
    /// A release channel.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Channel: name {
        Stable = "stable",
        /// Release candidates and stable releases.
        Rc = "rc",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeSettings {
    pub channel: Channel,
    /// Location of releases, a URL or a folder; `None` is the source of the current release.
    pub from: Option<String>,
    /// Number of releases to keep in addition to the current one.
    pub keep_versions: u64,
    /// How long the database copy from before an upgrade is kept.
    pub keep_snapshot: Duration,
    /// Delay before contract migrations are applied, counted from the time that each was first seen.
    pub cleanup_after: Duration,
    /// Maximum time that requests wait during an upgrade of a running instance before the upgrade is undone.
    pub max_pause: Duration,
}

impl Default for UpgradeSettings {
    fn default() -> Self {
        Self {
            channel: Channel::Stable,
            from: None,
            keep_versions: 3,
            keep_snapshot: 24 * HOUR,
            cleanup_after: 7 * 24 * HOUR,
            max_pause: Duration::from_secs(60),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const ALLOWED: &str = "a mapping of channel, from, keep_versions, keep_snapshot, cleanup_after and max_pause; see docs/reference/configuration.md";

impl UpgradeSettings {
    pub(crate) const KEYS: &[&str] =
        &["channel", "from", "keep_versions", "keep_snapshot", "cleanup_after", "max_pause"];

    /// Parses the value of the key; `Err` describes the allowed values.
    pub fn read(value: &Value) -> Result<Self, ValueError> {
        let mapping = value.as_mapping().ok_or(ALLOWED)?;
        let default = Self::default();
        let time = |value: &Value| value.as_str().and_then(duration);
        let pause = |value: &Value| time(value).filter(|time| !time.is_zero());
        let channel = |value: &Value| value.as_str().and_then(Channel::parse);
        // Unknown keys are ignored, as in `backup`.
        Ok(Self {
            channel: field(mapping, "channel", "stable or rc", channel)?.unwrap_or(default.channel),
            from: field(mapping, "from", "a URL or a folder", |value| value.as_str().map(str::to_owned))?,
            keep_versions: field(mapping, "keep_versions", "a whole number of at least 1", count)?
                .unwrap_or(default.keep_versions),
            keep_snapshot: field(mapping, "keep_snapshot", "a duration such as 24h, 90m or 2d", time)?
                .unwrap_or(default.keep_snapshot),
            cleanup_after: field(mapping, "cleanup_after", "a duration such as 7d, 24h or 90m", time)?
                .unwrap_or(default.cleanup_after),
            max_pause: field(mapping, "max_pause", "a duration such as 60s, 5m or 1h", pause)?
                .unwrap_or(default.max_pause),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applies_defaults_and_rejects_invalid_values() {
        let read = |text: &str| UpgradeSettings::read(&serde_yaml::from_str(text).unwrap());
        assert_eq!(read("{}"), Ok(UpgradeSettings::default()));
        assert_eq!(read("{channel: rc}").unwrap().channel, Channel::Rc);
        assert_eq!(read("{cleanup_after: 90m}").unwrap().cleanup_after, 90 * HOUR / 60);
        assert_eq!(read("{max_pause: 90s}").unwrap().max_pause, Duration::from_secs(90));
        assert_eq!(read("{keep_snapshot: 2d}").unwrap().keep_snapshot, 48 * HOUR);
        for wrong in [
            "{channel: beta}",
            "{keep_versions: 0}",
            "{keep_snapshot: 3}",
            "{keep_snapshot: h}",
            "{cleanup_after: soon}",
            "{max_pause: 0s}",
            "3",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
