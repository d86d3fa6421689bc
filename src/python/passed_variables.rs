//! The variables of our environment that DAGs and tasks get.

use leoflow_base::sys::env_vars;
use std::ffi::OsString;

/// Variables that any program of the user needs. Listed in docs/reference/environment-variables.md.
const PASSED: &[&str] = &[
    "CURL_CA_BUNDLE",
    "HOME",
    "HOSTNAME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
const PASSED_PREFIXES: &[&str] = &["AIRFLOW_", "LC_", "OTEL_", "XDG_"];

/// The variables of our environment that DAGs and tasks get. All others depend on the shell that started Lite; a
/// project sets those that it needs in its `.env`, so that they are the same after every start.
pub fn environment() -> Vec<(OsString, OsString)> {
    let is_passed =
        |name: &str| PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    env_vars::all().into_iter().filter(|(name, _)| is_passed(&name.to_string_lossy())).collect()
}
