//! `setup.json`: what setup created on this machine, and where. Uninstall depends on it.

use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub receipt_version: u32,
    pub leoflow_version: String,
    /// Time of the first setup, RFC 3339.
    pub set_up_at: String,
    pub home: PathBuf,
    pub workspace: PathBuf,
    /// True when setup created the workspace's folder.
    pub made_workspace: bool,
    /// True once the admin password was shown; until then each start generates a new one.
    pub password_shown: bool,
    /// Shell files with our line, removed by uninstall.
    #[serde(default)]
    pub shell_files: Vec<PathBuf>,
    /// File of the service, a systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<PathBuf>,
}

pub const RECEIPT_VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
}

impl Receipt {
    /// Reads the receipt; `None` if it does not exist.
    pub fn load(home: &Home) -> Result<Option<Self>, ReceiptError> {
        let path = home.receipt();
        files::read_json(&path, 1024 * 1024).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => ReceiptError::Damaged { path, detail: source.to_string() },
            _ => ReceiptError::Io { path, source },
        })
    }

    /// Changes the receipt, if there is one.
    pub(crate) fn change(home: &Home, change: impl FnOnce(&mut Self)) -> Result<(), ReceiptError> {
        let Some(mut receipt) = Self::load(home)? else { return Ok(()) };
        change(&mut receipt);
        receipt.write(home)
    }

    pub fn write(&self, home: &Home) -> Result<(), ReceiptError> {
        let path = home.receipt();
        let io = |source| ReceiptError::Io { path: path.clone(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        files::write_atomic(&path, &text, 0o600).map_err(io)
    }
}
