//! SIGHUP: the settings are read again at once, and what is not in force before a restart is told. Without it they are read when
//! they are needed and their file has changed.

use super::state::AppState;
use crate::config::{self, in_force};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Runs until it is dropped.
pub async fn on_hangup(state: Arc<AppState>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return warn!("SIGHUP will not be heard: {error}"),
    };
    while hangups.recv().await.is_some() {
        match config::load(&state.home.config()) {
            Ok(Some(loaded)) => {
                state.read_secrets_again();
                match in_force::changed_since(&state.home, &loaded) {
                    changed if changed.is_empty() => info!("the settings were read again"),
                    changed => info!(
                        "the settings were read again; after `leoflow lite restart --if-needed` in force: {}",
                        changed.join(", ")
                    ),
                }
            }
            Ok(None) => warn!("config.yaml is gone; the settings stay as they were"),
            Err(error) => warn!("the settings stay as they were: {error}"),
        }
    }
}
