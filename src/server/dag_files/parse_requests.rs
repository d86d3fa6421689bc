//! Files that a client asked to parse again.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
pub struct ParseRequests {
    files: Mutex<Vec<PathBuf>>,
    added: Notify,
}

impl ParseRequests {
    pub fn add(&self, file: PathBuf) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        self.added.notify_one();
    }

    /// Waits for requests and returns their files.
    pub async fn take(&self) -> Vec<PathBuf> {
        self.added.notified().await;
        std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
