//! The key `backup.copies`: the places that backups are copied to, and their addresses.

use super::Secret;
use crate::home::backup_names::is_archive_name;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// A place that backups are copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPlace {
    pub to: CopyAddress,
    /// Number of backups to keep there, newest first.
    pub keep: u64,
    /// The keys of an S3 bucket; without them, those of the environment are used.
    pub access_key: Option<Secret>,
    pub secret_key: Option<Secret>,
}

/// Number of backups that a place keeps by default.
const KEEP: u64 = 30;

/// The address of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyAddress {
    /// An absolute path.
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`.
    S3 { bucket: String, prefix: String, endpoint: Option<String>, region: Option<String> },
    /// `sftp://USER@HOST:PORT/PATH`; the path is absolute, or below the home directory there with `/~/PATH`.
    Sftp { user: Option<String>, host: String, port: Option<u16>, path: String },
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    #[error("{0:?} is not an absolute path, s3://BUCKET/PREFIX or sftp://USER@HOST/PATH")]
    Unknown(String),
    #[error("{0:?} names no bucket, or one with other characters than a-z, 0-9, . and -")]
    Bucket(String),
    #[error("an s3 address has an option besides endpoint=URL and region=NAME")]
    Option,
    #[error("an sftp address names no host, or one with other characters than letters, digits, . : and -")]
    Host,
    #[error("an address contains no password; sftp uses the keys of ssh")]
    Password,
    #[error("an address contains no control characters")]
    Control,
}

/// Why the value of `backup.copies` is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopiesError {
    #[error("copies: {0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("copies: {0}")]
    Address(#[from] AddressError),
    #[error("copies: {0}: keep is not a whole number of at least 1")]
    Keep(CopyAddress),
    #[error("copies: {0}: access_key and secret_key are allowed together, and for s3 only")]
    Keys(CopyAddress),
    #[error("copies: {0} is listed twice")]
    Twice(CopyAddress),
}

/// A place in the file, unless it is an address alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    to: String,
    #[serde(default = "default_keep")]
    keep: u64,
    access_key: Option<Secret>,
    secret_key: Option<Secret>,
}

fn default_keep() -> u64 {
    KEEP
}

/// Reads the list of places.
pub(super) fn read(value: &serde_yaml::Value) -> Result<Vec<CopyPlace>, CopiesError> {
    let mut places: Vec<CopyPlace> = Vec::new();
    for value in serde_yaml::from_value::<Vec<serde_yaml::Value>>(value.clone())? {
        let raw = match value {
            serde_yaml::Value::String(to) => RawPlace { to, keep: KEEP, access_key: None, secret_key: None },
            mapping => serde_yaml::from_value(mapping)?,
        };
        let to = CopyAddress::parse(&raw.to)?;
        if raw.keep == 0 {
            return Err(CopiesError::Keep(to));
        }
        let is_s3 = matches!(to, CopyAddress::S3 { .. });
        if raw.access_key.is_some() != raw.secret_key.is_some() || raw.access_key.is_some() && !is_s3 {
            return Err(CopiesError::Keys(to));
        }
        if places.iter().any(|place| place.to == to) {
            return Err(CopiesError::Twice(to));
        }
        places.push(CopyPlace { to, keep: raw.keep, access_key: raw.access_key, secret_key: raw.secret_key });
    }
    Ok(places)
}

impl CopyPlace {
    /// The value in the file.
    pub fn to_value(&self) -> serde_yaml::Value {
        let mut mapping = serde_yaml::Mapping::new();
        mapping.insert("to".into(), self.to.to_string().into());
        mapping.insert("keep".into(), self.keep.into());
        for (name, key) in [("access_key", &self.access_key), ("secret_key", &self.secret_key)] {
            if let Some(key) = key {
                mapping.insert(name.into(), key.text().into());
            }
        }
        mapping.into()
    }
}

impl From<CopyAddress> for CopyPlace {
    /// The place with this address and no settings of its own.
    fn from(to: CopyAddress) -> Self {
        Self { to, keep: KEEP, access_key: None, secret_key: None }
    }
}

impl CopyAddress {
    /// True for text that is an address, right or wrong, and no path.
    pub fn is_url(text: &str) -> bool {
        text.starts_with("s3://") || text.starts_with("sftp://")
    }

    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        if text.starts_with('/') {
            return Ok(Self::Folder(text.into()));
        }
        let url = text.split_once("://");
        let has_login = |(scheme, rest): (&str, &str)| {
            // The endpoint of an s3 address has an authority too.
            let authority = if scheme == "s3" { rest } else { rest.split('/').next().unwrap_or_default() };
            authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
        };
        if url.is_some_and(has_login) {
            return Err(AddressError::Password);
        }
        match url {
            Some(("s3", rest)) => Self::parse_s3(text, rest),
            Some(("sftp", rest)) => Self::parse_sftp(rest),
            _ => Err(AddressError::Unknown(text.to_owned())),
        }
    }

    fn parse_s3(text: &str, rest: &str) -> Result<Self, AddressError> {
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
        if bucket.is_empty() || !bucket.chars().all(is_allowed) {
            return Err(AddressError::Bucket(text.to_owned()));
        }
        let (mut endpoint, mut region) = (None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("endpoint", url)) if url.starts_with("http://") || url.starts_with("https://") => {
                    endpoint = Some(url.trim_end_matches('/').to_owned());
                }
                Some(("region", name)) if !name.is_empty() => region = Some(name.to_owned()),
                _ => return Err(AddressError::Option),
            }
        }
        let prefix = prefix.trim_matches('/').to_owned();
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix, endpoint, region })
    }

    fn parse_sftp(rest: &str) -> Result<Self, AddressError> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "~"));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let (host, port) = match host.rsplit_once(':') {
            // A bracketed IPv6 address contains colons itself.
            Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().map_err(|_| AddressError::Host)?)),
            _ => (host, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Neither may look like an option of ssh.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
        let is_name = |name: &str| !name.is_empty() && !name.starts_with('-') && name.chars().all(is_allowed);
        if !is_name(host) || user.is_some_and(|user| !is_name(user)) {
            return Err(AddressError::Host);
        }
        let path = match path.trim_end_matches('/') {
            "~" => ".".to_owned(),
            path => path.strip_prefix("~/").map_or_else(|| format!("/{path}"), str::to_owned),
        };
        Ok(Self::Sftp { user: user.map(str::to_owned), host: host.to_owned(), port, path })
    }

    /// The folder and the name of an address that leads to a file.
    pub fn split_file(&self) -> Option<(Self, String)> {
        let mut folder = self.clone();
        let (path, top) = match &mut folder {
            Self::Folder(_) => return None,
            Self::S3 { prefix, .. } => (prefix, ""),
            Self::Sftp { path, .. } => {
                let top = if path.starts_with('/') { "/" } else { "." };
                (path, top)
            }
        };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !is_archive_name(name) {
            return None;
        }
        let (parent, name) = (if parent.is_empty() { top } else { parent }.to_owned(), name.to_owned());
        *path = parent;
        Some((folder, name))
    }
}

impl fmt::Display for CopyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix, endpoint, region } => {
                write!(f, "s3://{bucket}")?;
                if !prefix.is_empty() {
                    write!(f, "/{prefix}")?;
                }
                let options = [("endpoint", endpoint), ("region", region)];
                let set = options.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                set.zip(std::iter::once('?').chain(std::iter::repeat('&')))
                    .try_for_each(|((name, value), separator)| write!(f, "{separator}{name}={value}"))
            }
            Self::Sftp { user, host, port, path } => {
                f.write_str("sftp://")?;
                user.iter().try_for_each(|user| write!(f, "{user}@"))?;
                if host.contains(':') {
                    write!(f, "[{host}]")?
                } else {
                    f.write_str(host)?
                };
                port.iter().try_for_each(|port| write!(f, ":{port}"))?;
                match path.as_str() {
                    "." => f.write_str("/~"),
                    path if path.starts_with('/') => f.write_str(path),
                    path => write!(f, "/~/{path}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "/media/usb/leoflow",
            "s3://bucket",
            "s3://my.bucket-1/a/b?endpoint=http://127.0.0.1:9000&region=eu-1",
            "s3://bucket/a?region=eu-1",
            "sftp://ada@nas.local:2222/srv/backups",
            "sftp://nas/~/backups",
            "sftp://[::1]:22/~",
        ] {
            assert_eq!(CopyAddress::parse(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(CopyAddress::parse("s3://b/a/").unwrap().to_string(), "s3://b/a");
        for wrong in [
            "usb",
            "ftp://h/p",
            "s3://",
            "s3://B/x",
            "s3://b?key=x",
            "s3://b?endpoint=h",
            "sftp://-oProxyCommand=x/p",
            "sftp://u:p@h/x",
            "/a\nb",
            "sftp://h:port/p",
            "s3://b?endpoint=https://k:s@h",
            "sftp://u:p/a@h/x",
        ] {
            assert!(CopyAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_lead_to_a_file() {
        let split = |text: &str| {
            let (folder, name) = CopyAddress::parse(text).unwrap().split_file()?;
            Some((folder.to_string(), name))
        };
        let found = |folder: &str| Some((folder.to_owned(), "x.tar.zst".to_owned()));
        assert_eq!(split("s3://b/a/x.tar.zst?region=r"), found("s3://b/a?region=r"));
        assert_eq!(split("s3://b/x.tar.zst"), found("s3://b"));
        assert_eq!(split("sftp://h/~/x.tar.zst"), found("sftp://h/~"));
        assert_eq!(split("sftp://h/x.tar.zst"), found("sftp://h/"));
        assert_eq!(split("sftp://h/srv/x.tar.zst"), found("sftp://h/srv"));
        assert_eq!(split("s3://b/a"), None);
    }

    #[test]
    fn places_are_checked() {
        let read = |text: &str| read(&serde_yaml::from_str(text).unwrap()).map_err(|error| error.to_string());
        let places = read("[/usb, {to: 's3://b/p', keep: 3, access_key: 'env:K', secret_key: 'env:S'}]").unwrap();
        assert_eq!((places[0].keep, places[1].keep, places[1].access_key.is_some()), (30, 3, true));
        let written: Vec<_> = places.iter().map(CopyPlace::to_value).collect();
        assert_eq!(super::read(&written.into()).unwrap(), places);
        for (text, reason) in [
            ("[usb]", "not an absolute path"),
            ("[{to: /usb, keep: 0}]", "at least 1"),
            ("[{to: /usb, kept: 1}]", "unknown field `kept`"),
            ("[{keep: 1}]", "missing field `to`"),
            ("[{to: 's3://b', access_key: 'x'}]", "together"),
            ("[{to: /usb, access_key: 'x', secret_key: 'y'}]", "for s3 only"),
            ("[/usb, /usb]", "twice"),
            ("/usb", "invalid type"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
