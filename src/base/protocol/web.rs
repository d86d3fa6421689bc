//! HTTP client for external servers.

use crate::sys::{blocking, env_vars};
use reqwest::Proxy;
use std::io;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A client with time limits for connecting and for the next bytes, and with the proxies of the environment.
pub fn client() -> reqwest::ClientBuilder {
    install_tls();
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(crate::sys::limit("LEOFLOW_STALL_TIMEOUT", Duration::from_secs(30)))
        .user_agent(concat!("leoflow/", env!("CARGO_PKG_VERSION")));
    proxies(&env_vars::text).into_iter().fold(builder, reqwest::ClientBuilder::proxy)
}

/// Chooses the implementation of TLS for all clients of this process.
pub fn install_tls() {
    // Fails if a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Addresses of this machine. A proxy would connect to its own machine instead.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";
/// Names of the variable with the addresses that are reached without a proxy; the first that is set counts.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxies of the environment, for all addresses but those of this machine and those in `NO_PROXY`. Without such
/// variables there are none.
fn proxies(variable: &dyn Fn(&str) -> Option<String>) -> Vec<Proxy> {
    let first = |names: [&str; 2]| names.into_iter().find_map(variable);
    let exceptions = reqwest::NoProxy::from_string(&without_proxy(variable));
    // In a CGI program, HTTP_PROXY is the `Proxy` header of the request, which a client controls.
    let http = first(["HTTP_PROXY", "http_proxy"]).filter(|_| variable("REQUEST_METHOD").is_none());
    let configured = [
        http.map(Proxy::http),
        first(["HTTPS_PROXY", "https_proxy"]).map(Proxy::https),
        first(["ALL_PROXY", "all_proxy"]).map(Proxy::all),
    ];
    // A value that is no address counts as unset, as for curl.
    configured.into_iter().flatten().flatten().map(|proxy| proxy.no_proxy(exceptions.clone())).collect()
}

/// The value of `NO_PROXY`, with this machine.
fn without_proxy(variable: &dyn Fn(&str) -> Option<String>) -> String {
    match NO_PROXY.into_iter().find_map(variable) {
        Some(own) => format!("{own},{LOOPBACK}"),
        None => LOOPBACK.to_owned(),
    }
}

/// Variables for programs that download: with them, a proxy of the environment does not apply to this machine.
pub fn no_proxy_variables() -> [(&'static str, String); 2] {
    NO_PROXY.map(|name| (name, without_proxy(&env_vars::text)))
}

/// Time limit for fetching a small file.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Why a file was not fetched; without the address, which may contain a login.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Runtime(#[from] io::Error),
    #[error("{}", chain(.0))]
    Request(#[source] reqwest::Error),
    #[error("the server answered {0}")]
    Status(reqwest::StatusCode),
    #[error("it is larger than {} MiB", .0 / 1024 / 1024)]
    TooLarge(u64),
    #[error("not finished after {} s", FETCH_LIMIT.as_secs())]
    TimedOut,
    #[error("the download was interrupted")]
    Interrupted,
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error.without_url())
    }
}

/// Fetches a file of at most `limit` bytes. Blocks; works on a thread of its own, because the caller's thread may
/// belong to a runtime.
pub fn fetch(url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
    let url = url.to_owned();
    let fetching = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let fetched = async { tokio::time::timeout(FETCH_LIMIT, fetch_bytes(&url, limit)).await };
        runtime.block_on(fetched).unwrap_or(Err(FetchError::TimedOut))
    };
    blocking::thread(fetching).join().unwrap_or(Err(FetchError::Interrupted))
}

async fn fetch_bytes(url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
    let response = client().build()?.get(url).send().await?;
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status()));
    }
    let bytes = read_body(response, limit, |_| {}).await?;
    if bytes.len() as u64 > limit { Err(FetchError::TooLarge(limit)) } else { Ok(bytes) }
}

/// Reads the body of a response, and stops once it has more than `limit` bytes. Reports its length after each part.
pub async fn read_body(mut response: reqwest::Response, limit: u64, report: impl Fn(u64)) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() as u64 <= limit
        && let Some(chunk) = response.chunk().await?
    {
        bytes.extend_from_slice(&chunk);
        report(bytes.len() as u64);
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

/// True if the certificate of the server was refused: it has expired, or no authority of this machine has signed it.
pub fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    // An I/O error does not have the error in it as its source.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
        || inner.is_some_and(|inner| is_certificate_error(inner))
        || error.source().is_some_and(is_certificate_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one request and returns its first line.
    fn answer_one(listener: TcpListener) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let length = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned()
        })
    }

    #[tokio::test]
    async fn a_proxy_does_not_apply_to_this_machine() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (proxy, host) = (listen(), listen());
        let proxy_address = format!("http://{}", proxy.local_addr().unwrap());
        let port = host.local_addr().unwrap().port();
        for (name, no_proxy) in [("http_proxy", None), ("ALL_PROXY", Some("example.com"))] {
            let variable = |asked: &str| match asked {
                _ if asked == name => Some(proxy_address.clone()),
                "NO_PROXY" => no_proxy.map(str::to_owned),
                _ => None,
            };
            let _ = rustls::crypto::ring::default_provider().install_default();
            let builder =
                proxies(&variable).into_iter().fold(reqwest::Client::builder(), reqwest::ClientBuilder::proxy);
            let client = builder.build().unwrap();
            let (proxy, host) = (answer_one(proxy.try_clone().unwrap()), answer_one(host.try_clone().unwrap()));
            client.get(format!("http://127.0.0.1:{port}/manifest.json")).send().await.unwrap();
            assert_eq!(host.join().unwrap(), "GET /manifest.json HTTP/1.1", "{name}");
            client.get("http://releases.invalid/manifest.json").send().await.unwrap();
            assert!(proxy.join().unwrap().starts_with("GET http://releases.invalid/"), "{name}");
        }
    }

    #[test]
    fn a_refused_certificate_is_found_inside_an_io_error() {
        let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(is_certificate_error(&std::io::Error::other(std::io::Error::other(refused))));
        assert!(!is_certificate_error(&std::io::Error::other("certificate")));
        assert!(!is_certificate_error(&std::io::Error::other(rustls::Error::DecryptError)));
    }
}
