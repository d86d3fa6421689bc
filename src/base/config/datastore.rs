//! The `datastore` key: the managed PostgreSQL under the home, one in a container, or an external server.

use super::keys::ValueError;
use super::recipient::{SecretError, SecretReference, UnreadableSecret};
use crate::sys::env_vars;
use crate::sys::fs::files;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_yaml::Value;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio_postgres::config::Host;

/// Value of the `datastore` key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DatastoreSetting {
    #[default]
    Managed,
    Docker,
    External(ExternalUrl),
    /// A reference to the URL (`file:` or `env:`).
    UrlReference(SecretReference),
}

/// `postgres://ROLE:PASSWORD@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…`, in libpq's form:
/// <https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-CONNSTRING-URIS>.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalUrl {
    /// The original URL, with its password.
    text: String,
    pub address: Address,
    pub role: String,
    /// Empty if the server requires none.
    pub password: String,
    pub database: String,
    pub tls: Tls,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp {
        host: String,
        port: u16,
    },
    /// A Unix socket in this folder; the port is part of its name.
    Socket {
        folder: PathBuf,
        port: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// Verifies the server's name and certificate, against this file's authorities or the system's.
    Verified {
        authorities: Option<PathBuf>,
    },
}

// Descriptions of allowed values, shown after "is not".
const ALLOWED: &str = "managed, docker, or url: postgres://ROLE:PASSWORD@HOST/DATABASE";
const URL: &str = "postgres://ROLE:PASSWORD@HOST:PORT/DATABASE";
const URL_OR_REFERENCE: &str =
    "postgres://ROLE:PASSWORD@HOST:PORT/DATABASE, or file:/PATH or env:NAME that contains it";
const SSLMODE: &str = "supported: sslmode must be verify-full (the default) or disable";
const SSLROOTCERT: &str = "supported: sslrootcert must be `system` or the absolute path of a certificate file";
const PARAMETERS: &str = "supported: only sslmode, sslrootcert, host, port, user, password and dbname may follow the ?";
const VARIABLE: &str = "supported: the variable's name must not begin with PG or LISTEN_";
const DEFAULT_PORT: u16 = 5432;

impl DatastoreSetting {
    pub(crate) const KEYS: &[&str] = &["url"];

    /// Parses the value of the key; `Err` describes the allowed values.
    pub fn read(value: &Value) -> Result<Self, ValueError> {
        if let Some(mapping) = value.as_mapping() {
            let url =
                mapping.get("url").and_then(Value::as_str).ok_or(ValueError::in_subkey("url", URL_OR_REFERENCE))?;
            return Self::parse_url(url).map_err(|allowed| ValueError::in_subkey("url", allowed));
        }
        match value.as_str() {
            Some("managed") => Ok(Self::Managed),
            Some("docker") => Ok(Self::Docker),
            _ => Err(ALLOWED.into()),
        }
    }

    /// Parses a command-line value or the URL in `config.yaml`: `managed`, `docker`, a URL, or a reference to one.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "managed" => Ok(Self::Managed),
            "docker" => Ok(Self::Docker),
            url => Self::parse_url(url).map_err(|allowed| if url.contains(':') { allowed } else { ALLOWED }),
        }
    }

    fn parse_url(text: &str) -> Result<Self, &'static str> {
        match SecretReference::parse(text) {
            // The supervisor's children get no `PG*` or `LISTEN_*` variables.
            Some(SecretReference::Variable(name)) if name.starts_with("PG") || name.starts_with("LISTEN_") => {
                Err(VARIABLE)
            }
            Some(reference) => Ok(Self::UrlReference(reference)),
            None => {
                let or_reference = |allowed| if allowed == URL { URL_OR_REFERENCE } else { allowed };
                ExternalUrl::parse(text).map(Self::External).map_err(or_reference)
            }
        }
    }

    /// Returns the URL of an external server, `None` for other kinds; `Err` says why the URL cannot be read.
    pub fn external(&self) -> Result<Option<ExternalUrl>, UnreadableSecret> {
        let reference = match self {
            Self::Managed | Self::Docker => return Ok(None),
            Self::External(url) => return Ok(Some(url.clone())),
            Self::UrlReference(reference) => reference,
        };
        let parse = |text: String| ExternalUrl::parse(text.trim()).map_err(SecretError::Value);
        let url = reference.read(env_vars::text).and_then(parse);
        let unreadable = |source| UnreadableSecret { name: "datastore.url", reference: reference.clone(), source };
        url.map(Some).map_err(unreadable)
    }

    /// Value of the key as written to `config.yaml`.
    pub fn to_value(&self) -> Value {
        let url = |text: String| Value::Mapping([("url".into(), text.into())].into_iter().collect());
        match self {
            Self::Managed => "managed".into(),
            Self::Docker => "docker".into(),
            Self::External(external) => url(external.text.clone()),
            Self::UrlReference(reference) => url(reference.to_string()),
        }
    }
}

/// Shows the setting without the password.
impl fmt::Display for DatastoreSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed => f.write_str("managed"),
            Self::Docker => f.write_str("docker"),
            Self::External(external) => external.fmt(f),
            Self::UrlReference(reference) => reference.fmt(f),
        }
    }
}

impl ExternalUrl {
    /// Parses a URL; `Err` describes the allowed values.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if !is_url || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(URL);
        }
        let (url_without_tls, tls) = Self::split_tls(text)?;
        let config = tokio_postgres::Config::from_str(&url_without_tls).map_err(|_| URL)?;
        let ([host], port) = (config.get_hosts(), config.get_ports().first().copied().unwrap_or(DEFAULT_PORT)) else {
            return Err(URL);
        };
        let address = match host {
            Host::Tcp(host) if !host.is_empty() => Address::Tcp { host: host.clone(), port },
            Host::Unix(folder) if folder.is_absolute() => Address::Socket { folder: folder.clone(), port },
            _ => return Err(URL),
        };
        let is_local = address.is_local();
        Ok(Self {
            text: text.to_owned(),
            role: config.get_user().ok_or(URL)?.to_owned(),
            password: String::from_utf8(config.get_password().unwrap_or_default().to_owned()).map_err(|_| URL)?,
            database: config.get_dbname().ok_or(URL)?.to_owned(),
            tls: tls.unwrap_or(if is_local { Tls::Off } else { Tls::Verified { authorities: None } }),
            address,
        })
    }

    /// True when the server must prove knowledge of the password by SCRAM, because nothing else authenticates it:
    /// without TLS another program may own its port, or its socket in a world-writable folder.
    pub fn requires_scram(&self) -> bool {
        match &self.address {
            Address::Tcp { .. } => self.tls == Tls::Off,
            Address::Socket { folder, .. } => files::mode(folder).map_or(true, |mode| mode & 0o002 != 0),
        }
    }

    /// True when traffic crosses a network unencrypted.
    pub fn is_open_to_others(&self) -> bool {
        self.tls == Tls::Off && !self.address.is_local()
    }

    /// Splits a URL into the URL without its TLS parameters and the TLS setting; `None` when the default applies.
    fn split_tls(text: &str) -> Result<(String, Option<Tls>), &'static str> {
        let Some((before, parameters)) = text.split_once('?') else { return Ok((text.to_owned(), None)) };
        let (mut mode, mut authorities, mut server_parameters) = (None, None, Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(URL)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| URL)?.into_owned();
            match name {
                "sslmode" => mode = Some(value),
                "sslrootcert" => authorities = Some(value),
                // Only parameters that identify the server; Leoflow sets all others itself.
                "host" | "port" | "user" | "password" | "dbname" => server_parameters.push(parameter),
                _ => return Err(PARAMETERS),
            }
        }
        let authorities = match authorities.as_deref() {
            None | Some("system") => None,
            Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
            Some(_) => return Err(SSLROOTCERT),
        };
        let tls = match mode.as_deref() {
            Some("disable") => Some(Tls::Off),
            Some("verify-full") => Some(Tls::Verified { authorities }),
            None if authorities.is_some() => Some(Tls::Verified { authorities }),
            None => None,
            // The other modes do not verify both the server's certificate and its name.
            Some(_) => return Err(SSLMODE),
        };
        let url_without_tls = if server_parameters.is_empty() {
            before.to_owned()
        } else {
            format!("{before}?{}", server_parameters.join("&"))
        };
        Ok((url_without_tls, tls))
    }

    /// True when both URLs name the same database, with any role.
    pub fn is_same_database(&self, other: &Self) -> bool {
        (&self.address, &self.database) == (&other.address, &other.database)
    }
}

/// Shows the URL without its password and TLS parameters; parsed again it names the same database.
impl fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        let (role, database) = (encoded(&self.role), encoded(&self.database));
        match &self.address {
            Address::Tcp { host, port } if host.contains(':') => {
                write!(f, "postgres://{role}@[{host}]:{port}/{database}")
            }
            Address::Tcp { host, port } => write!(f, "postgres://{role}@{host}:{port}/{database}"),
            Address::Socket { folder, port } => {
                let folder = encoded(&folder.to_string_lossy());
                write!(f, "postgres://{role}@/{database}?host={folder}&port={port}")
            }
        }
    }
}

/// Characters that are percent-encoded: all but letters, digits, `-_.~` and the slash of paths.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl fmt::Debug for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalUrl({self})")
    }
}

impl Address {
    /// True for a server on this machine.
    fn is_local(&self) -> bool {
        match self {
            Self::Socket { .. } => true,
            Self::Tcp { host, .. } => host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback()),
        }
    }

    /// Path of the socket, for a socket address.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Socket { folder, port } => Some(folder.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket { .. } => write!(f, "{}", self.socket().as_deref().unwrap_or(Path::new("")).display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_scram_without_tls() {
        let requires_scram = |text: &str| ExternalUrl::parse(text).unwrap().requires_scram();
        assert!(requires_scram("postgres://a@127.0.0.1/b") && requires_scram("postgres://a@h/b?sslmode=disable"));
        assert!(!requires_scram("postgres://a@h/b") && !requires_scram("postgres://a@127.0.0.1/b?sslmode=verify-full"));
        let folder = tempfile::tempdir().unwrap();
        let url = format!("postgres://a@/b?host={}", folder.path().display());
        assert!(!requires_scram(&url), "only the owner may write to the folder");
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(requires_scram(&url), "everyone may write to the folder");
    }

    #[test]
    fn parses_role_address_and_tls_of_a_url() {
        let url = ExternalUrl::parse("postgres://ada:p%40ss@db.example.org/pipelines").unwrap();
        assert_eq!((url.role.as_str(), url.password.as_str(), url.database.as_str()), ("ada", "p@ss", "pipelines"));
        assert_eq!(url.address, Address::Tcp { host: "db.example.org".into(), port: 5432 });
        assert_eq!(url.tls, Tls::Verified { authorities: None });
        assert_eq!(url.to_string(), "postgres://ada@db.example.org:5432/pipelines");
        let parse = |text: &str| ExternalUrl::parse(text).unwrap();
        assert_eq!(parse("postgres://a@127.0.0.1:5433/b").tls, Tls::Off);
        assert_eq!(parse("postgres://a@h/b?sslmode=disable").tls, Tls::Off);
        let with_authority = parse("postgresql://a@h/b?sslmode=verify-full&sslrootcert=%2Fca.pem");
        assert_eq!(with_authority.tls, Tls::Verified { authorities: Some("/ca.pem".into()) });
        let socket = parse("postgres://a@/b?host=%2Frun%2Fpg&port=5433");
        assert_eq!(socket.address.socket().unwrap(), Path::new("/run/pg/.s.PGSQL.5433"));
        assert_eq!(socket.tls, Tls::Off);
        assert!(
            with_authority.is_same_database(&parse("postgres://other@h/b"))
                && !with_authority.is_same_database(&parse("postgres://a@h/c"))
        );
    }

    #[test]
    fn displayed_url_names_the_same_database_without_password() {
        for text in [
            "postgres://a:secret@h/b",
            "postgres://a%40b:secret@127.0.0.1:5433/my%20data%3F",
            "postgres://a:secret@[::1]:5433/b",
            "postgres://a:secret@/b?host=%2Frun%2Fpg&port=5433",
            "postgres://a:secret@%2Frun%2Fa%20b/b",
        ] {
            let url = ExternalUrl::parse(text).unwrap();
            let reparsed = ExternalUrl::parse(&url.to_string()).unwrap();
            assert!(reparsed.is_same_database(&url) && reparsed.role == url.role, "{text}: {url}");
            assert!(!url.to_string().contains("secret"));
        }
    }

    #[test]
    fn rejects_invalid_and_unverified_urls() {
        for text in [
            "mysql://a@h/b",
            "postgres://h/b",
            "postgres://a@h",
            "postgres://a@/b",
            "postgres://a@h,i/b",
            "postgres://a@h:99999/b",
            "postgres://a@h/b?sslmode=require",
            "postgres://a@h/b?sslmode=prefer",
            "postgres://a@h/b?sslrootcert=ca.pem",
            "postgres://a@h/b?options=-c%20x",
            "postgres://a@h/b c",
            "",
        ] {
            assert!(ExternalUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn parses_kind_url_or_reference() {
        let read = |text: &str| DatastoreSetting::read(&serde_yaml::from_str(text).unwrap());
        assert_eq!(read("managed").unwrap(), DatastoreSetting::Managed);
        assert_eq!(read("docker").unwrap(), DatastoreSetting::Docker);
        assert_eq!(
            read("{url: 'file:/u'}").unwrap(),
            DatastoreSetting::UrlReference(SecretReference::File("/u".into()))
        );
        for wrong in ["sqlite", "1", "{}", "{url: 5}", "{url: 'http://x'}", "[managed]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for text in ["managed", "docker", "postgres://a:secret@h/b", "env:URL"] {
            let setting = DatastoreSetting::parse(text).unwrap();
            assert_eq!(DatastoreSetting::read(&setting.to_value()).unwrap(), setting);
            assert!(!format!("{setting} {setting:?}").contains("secret"));
        }
    }
}
