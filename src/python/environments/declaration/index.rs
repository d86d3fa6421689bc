//! Package indexes, and which files of a package may be installed: from a project's settings and pip's options.

use super::addresses::{check_login, is_web};
use super::error::LineError;
use super::variables::Variables;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;

/// Package indexes and their options, in addition to the machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Replaces the default index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<String>,
    /// A date or an RFC 3339 timestamp; packages published later are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_newer: Option<String>,
    /// Folders and addresses with further package files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub find_links: Vec<String>,
    /// Installs packages from `find_links` only.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub no_index: bool,
    /// Packages that are built from source; `:all:` for every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_binary: Vec<String>,
    /// Packages that are never built; `:all:` for every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_binary: Vec<String>,
    /// Allows prereleases of every package.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub prereleases: bool,
    /// Hosts whose certificates are not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_hosts: Vec<String>,
    /// Refuses packages whose hashes the project does not pin.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub require_hashes: bool,
}

// serde requires this signature.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_unset(flag: &bool) -> bool {
    !flag
}

impl Index {
    /// Adds everything except the default index: two sources may conflict about it, so the caller decides.
    pub fn extend(&mut self, other: &Self) {
        self.extra.extend_from_slice(&other.extra);
        self.find_links.extend_from_slice(&other.find_links);
        self.no_binary.extend_from_slice(&other.no_binary);
        self.only_binary.extend_from_slice(&other.only_binary);
        self.trusted_hosts.extend_from_slice(&other.trusted_hosts);
        self.no_index |= other.no_index;
        self.prereleases |= other.prereleases;
        self.require_hashes |= other.require_hashes;
        if self.exclude_newer.is_none() {
            self.exclude_newer.clone_from(&other.exclude_newer);
        }
    }

    /// All addresses and paths.
    pub fn addresses(&self) -> impl Iterator<Item = &String> {
        self.first.iter().chain(&self.extra).chain(&self.find_links)
    }

    /// Checks the addresses, which are stored in the datastore and displayed.
    pub fn check(&self) -> Result<(), LineError> {
        for url in self.first.iter().chain(&self.extra) {
            let is_supported = is_web(url) || url.starts_with("file://") || url.starts_with("${");
            if !is_supported {
                return Err(LineError::IndexAddress(url.clone()));
            }
        }
        self.addresses().try_for_each(|url| check_login(url).map_err(LineError::about("an index")))
    }

    /// The indexes, and the variables that these texts contain, as environment variables for uv. Other users cannot
    /// read them, unlike arguments.
    pub fn environment<'a>(
        &self,
        variables: &Variables,
        texts: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<(String, String)>, LineError> {
        let mut environment = Vec::new();
        if let Some(url) = &self.first {
            environment.push(("UV_DEFAULT_INDEX".to_owned(), variables.expand(url)?));
        }
        if !self.extra.is_empty() {
            let urls: Vec<String> = self.extra.iter().map(|url| variables.expand(url)).collect::<Result<_, _>>()?;
            environment.push(("UV_INDEX".to_owned(), urls.join(" ")));
        }
        environment.extend(variables.required(texts)?);
        Ok(environment)
    }

    /// The addresses of `find_links` as lines of a requirements file for uv: as arguments, a secret in them would be
    /// visible.
    pub fn lines(&self) -> Vec<String> {
        self.find_links.iter().filter(|place| place.contains("://")).map(|url| format!("--find-links {url}")).collect()
    }

    /// Arguments for uv, for resolving and for installing.
    pub fn arguments(&self) -> Vec<OsString> {
        let folders = self.find_links.iter().filter(|place| !place.contains("://"));
        let pairs = folders.map(|folder| ("--find-links", folder));
        let pairs = pairs.chain(self.no_binary.iter().map(|name| ("--no-binary", name)));
        let pairs = pairs.chain(self.only_binary.iter().map(|name| ("--only-binary", name)));
        let pairs = pairs.chain(self.trusted_hosts.iter().map(|host| ("--allow-insecure-host", host)));
        let mut arguments: Vec<OsString> = pairs.flat_map(|(option, value)| [option.into(), value.into()]).collect();
        arguments.extend(self.no_index.then(|| "--no-index".into()));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_without_options_is_stored_as_before() {
        let index = Index { first: Some("https://i/simple".into()), ..Index::default() };
        assert_eq!(serde_json::to_string(&index).unwrap(), r#"{"first":"https://i/simple"}"#);
        let read: Index = serde_json::from_str("{}").unwrap();
        assert_eq!(read, Index::default());
    }

    #[test]
    fn secrets_are_not_among_the_arguments() {
        let index = Index {
            first: Some("https://${U}:${P}@i/simple".into()),
            find_links: vec!["https://${U}:${P}@w/".into(), "/folder".into()],
            no_index: true,
            ..Index::default()
        };
        let lookup = |name: &str| Some(format!("{name}-value"));
        let variables = Variables::read(index.addresses(), &lookup);
        assert_eq!(
            index.environment(&variables, []).unwrap(),
            [("UV_DEFAULT_INDEX".to_owned(), "https://U-value:P-value@i/simple".to_owned())]
        );
        assert_eq!(index.lines(), ["--find-links https://${U}:${P}@w/"]);
        assert_eq!(index.arguments(), ["--find-links", "/folder", "--no-index"]);
    }
}
