//! The address of a release host. A user name, password or token in it is sent with each request and never shown.

use super::manifest::MANIFEST;
use std::fmt;

/// The base URL of a release host. `Display` and `Debug` hide its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Ends in `/`.
    base: String,
    /// The part after `?`, such as a token.
    query: Option<String>,
}

impl Address {
    /// Parses the address of the folder, or of the manifest in it.
    pub fn parse(text: &str) -> Self {
        let text = text.split('#').next().unwrap_or(text);
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (text, None),
        };
        let base = path.strip_suffix(MANIFEST).unwrap_or(path);
        Self { base: format!("{}/", base.trim_end_matches('/')), query }
    }

    /// The URL of the file `name`, with secrets. `name` may be a full URL on another host, which gets no secrets.
    pub fn request(&self, name: &str) -> String {
        if is_address(name) {
            return name.to_owned();
        }
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{name}{query}", self.base)
    }

    /// The URL of the file `name` without secrets, for messages.
    pub fn redacted(&self, name: &str) -> String {
        if is_address(name) { without_secrets(name) } else { format!("{}{name}", without_secrets(&self.base)) }
    }

    /// The address with its secrets, to pass to a process of the same user.
    pub fn with_secrets(&self) -> String {
        self.request("")
    }
}

/// True for a text that starts with `http://` or `https://`.
pub fn is_address(text: &str) -> bool {
    let has_scheme = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    has_scheme("http://") || has_scheme("https://")
}

/// Strips user name, password and query from a URL.
pub fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(host_end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted(""))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_sent_with_requests_and_never_shown() {
        for (text, request, redacted) in [
            ("https://h/r", "https://h/r/a.tar", "https://h/r/a.tar"),
            ("https://h/r/manifest.json", "https://h/r/a.tar", "https://h/r/a.tar"),
            ("https://lena:pw@h:1/r/", "https://lena:pw@h:1/r/a.tar", "https://h:1/r/a.tar"),
            ("https://le@na:p@w@h/r?token=x&y=1", "https://le@na:p@w@h/r/a.tar?token=x&y=1", "https://h/r/a.tar"),
            ("https://h/r/manifest.json?token=x", "https://h/r/a.tar?token=x", "https://h/r/a.tar"),
            ("http://h/a@b/#x", "http://h/a@b/a.tar", "http://h/a@b/a.tar"),
        ] {
            let address = Address::parse(text);
            assert_eq!(
                (address.request("a.tar").as_str(), address.redacted("a.tar").as_str()),
                (request, redacted),
                "{text}"
            );
            assert_eq!(Address::parse(&address.with_secrets()), address);
            assert!(!format!("{address:?} {address}").contains("pw"));
        }
        let address = Address::parse("https://lena:pw@h/r?token=x");
        assert_eq!(address.request("https://other/f"), "https://other/f");
        assert_eq!(address.redacted("https://u:p@other/f?t=1"), "https://other/f");
    }
}
