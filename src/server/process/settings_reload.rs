//! SIGHUP: checks the settings, reloads the secrets of logins at once, and logs which changes need a restart. Without
//! SIGHUP, the secrets are reloaded when they are needed and their files have changed.

use crate::login::credentials::Auth;
use leoflow_base::config::{self, running_settings};
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Installs the handler, so that SIGHUP no longer ends this process.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Checks the settings and reloads the secrets at each SIGHUP. Runs until dropped.
pub async fn reload_on_hangup(auth: Arc<Auth>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match config::load(&auth.core.home.config()) {
            Ok(Some(loaded)) => {
                if let Err(key) = auth.reload_secrets() {
                    warn!("logins keep the old secrets, because {key} is missing from config.yaml or cannot be read");
                    continue;
                }
                match running_settings::changed_since(&auth.core.home, &loaded) {
                    changed if changed.is_empty() => info!("settings reloaded"),
                    changed => info!(
                        "settings reloaded; takes effect after `leoflow lite restart --if-needed`: {}",
                        changed.join(", ")
                    ),
                }
            }
            Ok(None) => warn!("config.yaml does not exist; the old settings stay in effect"),
            Err(error) => warn!("the old settings stay in effect: {error}"),
        }
    }
}
