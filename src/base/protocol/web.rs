//! HTTP client for external servers.

use crate::sys::blocking;
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

/// Time limit for fetching a small file.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Fetches a file of at most `limit` bytes. Blocks, on a thread of its own: the caller may be one of a runtime. The
/// error, for people, does not contain the address, which may have a login.
pub fn fetch(url: &str, limit: u64) -> Result<Vec<u8>, String> {
    let url = url.to_owned();
    let fetching = move || -> Result<Vec<u8>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let fetched = async { tokio::time::timeout(FETCH_LIMIT, fetch_bytes(&url, limit)).await };
        runtime.block_on(fetched).unwrap_or_else(|_| Err(format!("not finished after {} s", FETCH_LIMIT.as_secs())))
    };
    blocking::thread(fetching).join().unwrap_or_else(|_| Err("the download was interrupted".to_owned()))
}

async fn fetch_bytes(url: &str, limit: u64) -> Result<Vec<u8>, String> {
    let shown = |error: reqwest::Error| chain(&error.without_url());
    let mut response = client().build().map_err(shown)?.get(url).send().await.map_err(shown)?;
    if !response.status().is_success() {
        return Err(format!("the server answered {}", response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(shown)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(format!("it is larger than {} MiB", limit / 1024 / 1024));
        }
    }
    Ok(bytes)
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
