//! The environment variables that uv gets: the sources of packages, the network, and tools for builds. Listed in
//! docs/reference/environment-variables.md.

use super::uv_settings;
use leoflow_base::sys::env_vars;
use std::ffi::OsString;

/// Variables of our environment that uv gets in addition to those of DAGs and those of `uv_settings::APPLICABLE`.
/// Variables for the target folder and the Python are not passed, because Leoflow sets these.
const PASSED: &[&str] =
    &["NETRC", "UV_CREDENTIALS_DIR", "UV_DEFAULT_INDEX", "UV_HTTP_RETRIES", "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST"];
const PASSED_PREFIX: &str = "UV_INDEX";
/// Variables of our environment that builds from source and git need: compilers, libraries, and keys.
const BUILD: &[&str] = &[
    "AR",
    "ARCHFLAGS",
    "CARGO_HOME",
    "CC",
    "CFLAGS",
    "CMAKE_ARGS",
    "CMAKE_PREFIX_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "CPPFLAGS",
    "CXX",
    "CXXFLAGS",
    "C_INCLUDE_PATH",
    "GIT_ASKPASS",
    "GIT_CONFIG_GLOBAL",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "JAVA_HOME",
    "LD",
    "LDFLAGS",
    "LIBRARY_PATH",
    "MAKEFLAGS",
    "PKG_CONFIG",
    "PKG_CONFIG_LIBDIR",
    "PKG_CONFIG_PATH",
    "RUSTFLAGS",
    "RUSTUP_HOME",
    "SSH_AUTH_SOCK",
];

/// Defaults that the user's own variables override. The timeout (seconds without a byte) and the number of retries are
/// small, because other builds wait while an index does not answer. uv uses the system's certificates, because a proxy
/// that inspects TLS needs its own among them (uv before 0.11 knows only `UV_NATIVE_TLS`).
pub const DEFAULTS: [(&str, &str); 4] =
    [("UV_HTTP_TIMEOUT", "20"), ("UV_HTTP_RETRIES", "2"), ("UV_NATIVE_TLS", "true"), ("UV_SYSTEM_CERTS", "true")];

/// True for a variable of our environment that uv gets.
pub fn is_passed(name: &str) -> bool {
    let setting = name.strip_prefix("UV_").map(|name| name.to_lowercase().replace('_', "-"));
    let is_setting = setting.is_some_and(|setting| uv_settings::APPLICABLE.contains(&setting.as_str()));
    is_setting || PASSED.contains(&name) || BUILD.contains(&name) || name.starts_with(PASSED_PREFIX)
}

/// True if a variable of our environment configures an index for uv.
pub fn has_index_variable() -> bool {
    let names = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_INDEX"];
    names.iter().any(|name| env_vars::is_set(name))
}

/// The variables of our environment that uv gets.
pub fn passed() -> Vec<(OsString, OsString)> {
    env_vars::all().into_iter().filter(|(name, _)| is_passed(&name.to_string_lossy())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_apply_as_variables_and_in_files() {
        // The variables of these settings have other names, or are not specific to uv.
        let others = ["allow-insecure-host", "http-proxy", "https-proxy", "no-proxy"];
        for name in uv_settings::APPLICABLE.iter().filter(|name| !others.contains(name)) {
            let variable = format!("UV_{}", name.replace('-', "_").to_uppercase());
            assert!(is_passed(&variable), "{variable}");
        }
        assert!(!is_passed("UV_CONSTRAINT") && !is_passed("UV_REQUIRE_HASHES"));
        assert!(["CC", "PKG_CONFIG_PATH", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND"].into_iter().all(is_passed));
    }

    #[test]
    fn the_system_certificates_are_the_default() {
        for name in ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS"] {
            assert!(DEFAULTS.contains(&(name, "true")) && is_passed(name), "{name}");
        }
    }
}
