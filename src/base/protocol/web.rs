//! HTTP client for external servers.

use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest stall in a download.
fn stall_timeout() -> Duration {
    crate::sys::limit("LEOFLOW_STALL_TIMEOUT", Duration::from_secs(30))
}

/// A client with time limits for connecting and for the next bytes.
pub fn client() -> reqwest::ClientBuilder {
    // Fails if a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(stall_timeout())
        .user_agent(concat!("leoflow/", env!("CARGO_PKG_VERSION")))
}

/// Formats an error with its causes, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
