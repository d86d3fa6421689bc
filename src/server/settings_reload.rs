//! SIGHUP: the settings are read again at once, and what is not in force before a restart is told. Without it they are read when
//! they are needed and their file has changed.

use super::state::AppState;
use crate::config::{self, in_force};
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// From here on it ends this process no more.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Runs until it is dropped.
pub async fn on_hangup(state: Arc<AppState>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match config::load(&state.home.config()) {
            Ok(Some(loaded)) => {
                if let Err(key) = state.read_secrets_again() {
                    warn!("who may log in stays as it was: {key} is not in config.yaml, or cannot be had");
                    continue;
                }
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
