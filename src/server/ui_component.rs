//! Where Airflow's web UI is, and getting it where a setup has not.

use crate::home::Home;
use crate::sys::blocking;
use crate::web_ui::{self, UiSource};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{info, warn};

/// After which it is tried again to get it, each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// Why the UI is not there.
#[derive(Default)]
pub struct UiComponent {
    reason: Mutex<Option<String>>,
}

impl UiComponent {
    /// `None` while it is being fetched.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Gets it, and tries again after a while where it cannot be had.
pub async fn keep(home: Home, ui: Arc<UiComponent>) {
    let source = UiSource::from_environment();
    let mut pause = FIRST_PAUSE;
    while web_ui::installed(&home).is_none() {
        ui.set(None);
        let (folder, from) = (home.clone(), source.clone());
        let installed = blocking::run(move || web_ui::install(&folder, &from)).await;
        match installed.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => info!("Airflow's web UI is there"),
            Err(reason) if source == UiSource::None => return ui.set(Some(reason)),
            Err(reason) => {
                warn!("Airflow's web UI could not be had: {reason}");
                ui.set(Some(reason));
                tokio::time::sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        }
    }
}
