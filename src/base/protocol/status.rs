//! The status of an instance as `lite status --json` prints it.

use crate::home::journal::ChangeUnderWay;
use crate::sys::process::process_memory::{proportional_bytes, proportional_bytes_of_tree};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    Healthy,
    Starting,
    /// Serving, but a process is being restarted, or cannot do its work.
    Degraded,
    /// An upgrade has stopped a part of the instance for a moment; requests wait.
    Upgrading,
    /// Everything runs, but the datastore has corrupted data.
    Damaged,
    /// A process has ended for a permanent reason and is not restarted.
    Failed,
    Stopped,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub state: InstanceState,
    pub version: String,
    pub url: String,
    pub home: String,
    pub schema_version: Option<i64>,
    pub uptime_seconds: u64,
    pub processes: Vec<ProcessStatus>,
    /// Why the state is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True if it runs in the background (`lite start`).
    #[serde(default)]
    pub detached: bool,
    /// An upgrade or rollback that runs or was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeUnderWay>,
    /// The supervisor's own pid.
    #[serde(default)]
    pub pid: i32,
    /// Added by the command that shows the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupsStatus>,
    /// Changed settings that take effect after a restart; added by the command that shows the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupsStatus {
    /// When a backup in the home was last created, on schedule or by hand.
    pub last_backup_at: Option<String>,
    /// When a backup in the home last passed a test restore.
    pub last_verified_at: Option<String>,
    /// Why the last scheduled backup or test restore failed, or why the next one cannot be tried.
    pub problems: Vec<String>,
    /// True if a scheduled backup failed or is overdue.
    #[serde(default)]
    pub are_missing: bool,
}

impl InstanceStatus {
    /// True if healthy, and no scheduled backup is missing.
    pub fn is_well(&self) -> bool {
        self.state == InstanceState::Healthy && !self.backups.as_ref().is_some_and(|backups| backups.are_missing)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    /// `waiting`, `starting`, `running`, `restarting`, `stopping`, `stopped`, `done`, `failed`.
    pub state: String,
    pub pid: Option<i32>,
    pub restarts: u32,
    pub rss_bytes: Option<u64>,
    /// The last status text of the process (`STATUS=`), or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ProcessStatus {
    /// The state and the status text of the process, for people.
    pub fn state_text(&self) -> String {
        match &self.detail {
            Some(detail) if *detail != self.state => format!("{} ({detail})", self.state),
            _ => self.state.clone(),
        }
    }

    /// The memory of the process and its children as text: `12.3 MiB`. For the supervisor, whose children are listed
    /// themselves, only its own. Counts proportional pages (PSS), or `rss_bytes` where those cannot be read. Empty for
    /// a process that does not run. Blocks.
    pub fn memory_text(&self) -> String {
        let share = if self.name == "supervisor" { proportional_bytes } else { proportional_bytes_of_tree };
        let bytes = self.pid.and_then(share).or(self.rss_bytes);
        bytes.map(|bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0)).unwrap_or_default()
    }
}
