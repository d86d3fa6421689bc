//! Where Airflow's web UI is, and getting it where a setup has not.

use crate::home::Home;
use crate::web_ui::{self, UiSource};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{info, warn};

/// After which it is tried again to get it.
const AGAIN: Duration = Duration::from_secs(600);

/// Where the UI is, or why it is not there.
#[derive(Default)]
pub struct UiComponent {
    reason: Mutex<Option<String>>,
}

impl UiComponent {
    pub fn folder(&self, home: &Home) -> Option<PathBuf> {
        web_ui::installed(home)
    }

    /// `None` while it is being fetched.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// Gets it, and tries again after a while where it cannot be had.
pub async fn keep(home: Home, ui: Arc<UiComponent>) {
    let source = UiSource::from_environment();
    while web_ui::installed(&home).is_none() {
        let (folder, from) = (home.clone(), source.clone());
        let installed = tokio::task::spawn_blocking(move || web_ui::install(&folder, &from)).await;
        match installed.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => info!("Airflow's web UI is there"),
            Err(reason) if source == UiSource::None => return ui.failed(reason),
            Err(reason) => {
                warn!("Airflow's web UI could not be had: {reason}");
                ui.failed(reason);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
