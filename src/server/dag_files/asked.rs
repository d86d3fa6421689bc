//! Files that somebody asks to be parsed again, as they are.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
pub struct Asked {
    files: Mutex<Vec<PathBuf>>,
    told: Notify,
}

impl Asked {
    pub fn ask(&self, file: PathBuf) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        self.told.notify_one();
    }

    /// Waits until somebody has asked.
    pub async fn take(&self) -> Vec<PathBuf> {
        self.told.notified().await;
        std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
