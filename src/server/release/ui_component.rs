//! Installs Airflow's web UI if setup has not installed it.

use super::Release;
use leoflow_base::home::Home;
use leoflow_base::sys::blocking;
use leoflow_base::sys::mutex::lock;
use leoflow_components::web_ui::{self, UiSource};
use std::sync::Mutex;
use std::time::Duration;
use tracing::{info, warn};

/// First delay before a retry; doubles up to `MAX_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// The state of the UI's installation.
#[derive(Default)]
pub struct UiComponent {
    reason: Mutex<Option<String>>,
}

impl UiComponent {
    /// Returns why the UI is not installed; `None` while it is being installed, and afterwards.
    pub fn reason(&self) -> Option<String> {
        lock(&self.reason).clone()
    }

    fn set(&self, reason: Option<String>) {
        *lock(&self.reason) = reason;
    }
}

/// Installs the UI from its source, and retries until it succeeds. Gives up if the source is `UiSource::None`.
pub async fn install(home: Home, Release { ui, web_ui: chosen, .. }: Release) {
    let source = UiSource::from_environment();
    let mut pause = FIRST_PAUSE;
    while web_ui::installed(&home, chosen).is_none() {
        ui.set(None);
        let (folder, from) = (home.clone(), source.clone());
        let installed =
            blocking::run(move || web_ui::install(&folder, &from, chosen).map_err(|error| error.to_string())).await;
        match installed.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => info!("installed Airflow's web UI"),
            Err(reason) if source == UiSource::None => return ui.set(Some(reason)),
            Err(reason) => {
                warn!("failed to get Airflow's web UI: {reason}");
                ui.set(Some(reason));
                tokio::time::sleep(pause).await;
                pause = MAX_PAUSE.min(pause * 2);
            }
        }
    }
}
