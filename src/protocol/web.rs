//! Asking servers that are not ours.

use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest silence in the middle of a download.
fn stall_timeout() -> Duration {
    crate::sys::limit("LEOFLOW_STALL_TIMEOUT", Duration::from_secs(30))
}

/// A client that waits no longer than anybody would for a connection, or for the next bytes.
pub fn client() -> reqwest::ClientBuilder {
    // A second installation of the same provider is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(stall_timeout())
        .user_agent(concat!("leoflow/", env!("CARGO_PKG_VERSION")))
}

/// An error with its causes, each said once.
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
