//! The `datastore` key: the PostgreSQL under the home, one in a container, or a server that somebody else looks after.

use super::keys::Wrong;
use super::recipient::SecretPlace;
use crate::sys::{env_vars, files};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_yaml::Value;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio_postgres::config::Host;

/// What the key says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DatastoreSetting {
    #[default]
    Managed,
    Docker,
    External(ExternalUrl),
    /// One whose URL is kept elsewhere.
    Elsewhere(SecretPlace),
}

/// `postgres://ROLE:PASSWORD@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…`, in libpq's form:
/// <https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-CONNSTRING-URIS>.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalUrl {
    /// As it was written, the password with it.
    text: String,
    pub address: Address,
    pub role: String,
    /// Empty where the server asks for none.
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
    /// The folder of its socket.
    Socket {
        folder: PathBuf,
        port: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// The server's name and certificate are verified, by the authorities of this file or of the system.
    Verified {
        authorities: Option<PathBuf>,
    },
}

const ALLOWED: &str = "managed, docker, or url: postgres://ROLE:PASSWORD@HOST/DATABASE";
const URL: &str = "postgres://ROLE:PASSWORD@HOST:PORT/DATABASE, or file:/PATH or env:NAME with that";
const SSLMODE: &str = "possible: sslmode is verify-full, which is the default, or disable";
const ROOT: &str = "possible: sslrootcert is the absolute path of a file of certificates, or system";
const VARIABLE: &str = "possible: the variable's name may not begin with PG or LISTEN_";
const DEFAULT_PORT: u16 = 5432;

impl DatastoreSetting {
    pub const KEYS: &[&str] = &["url"];

    /// From the value of the key. `Err` is what is allowed.
    pub fn read(value: &Value) -> Result<Self, Wrong> {
        if let Some(mapping) = value.as_mapping() {
            let url = mapping.get("url").and_then(Value::as_str).ok_or(Wrong::in_key("url", URL))?;
            return Self::of_url(url).map_err(|allowed| Wrong::in_key("url", allowed));
        }
        match value.as_str() {
            Some("managed") => Ok(Self::Managed),
            Some("docker") => Ok(Self::Docker),
            _ => Err(ALLOWED.into()),
        }
    }

    /// From what stands on a command line: `managed`, `docker`, or a URL or where it is.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "managed" => Ok(Self::Managed),
            "docker" => Ok(Self::Docker),
            url => Self::of_url(url).map_err(|allowed| if url.contains(':') { allowed } else { ALLOWED }),
        }
    }

    fn of_url(text: &str) -> Result<Self, &'static str> {
        match SecretPlace::parse(text) {
            // The children of the supervisor get none of PostgreSQL's own.
            Some(SecretPlace::Variable(name)) if name.starts_with("PG") || name.starts_with("LISTEN_") => Err(VARIABLE),
            Some(place) => Ok(Self::Elsewhere(place)),
            None => ExternalUrl::parse(text).map(Self::External),
        }
    }

    /// The server that somebody else looks after, where it is one. An error is why its URL cannot be had.
    pub fn external(&self) -> Result<Option<ExternalUrl>, String> {
        let place = match self {
            Self::Managed | Self::Docker => return Ok(None),
            Self::External(url) => return Ok(Some(url.clone())),
            Self::Elsewhere(place) => place,
        };
        let read = || match place {
            SecretPlace::File(path) => match files::read_text(path, 64 * 1024) {
                Ok(Some(text)) => Ok(text),
                Ok(None) => Err("there is no such file".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            SecretPlace::Variable(name) => env_vars::text(name).ok_or("that variable is not set".to_owned()),
        };
        read()
            .and_then(|text| {
                ExternalUrl::parse(text.trim()).map_err(|allowed| format!("what is there is not {allowed}"))
            })
            .map(Some)
            .map_err(|reason| format!("datastore.url: {place}: {reason}"))
    }

    /// As it stands in the file.
    pub fn to_value(&self) -> Value {
        let url = |text: String| Value::Mapping([("url".into(), text.into())].into_iter().collect());
        match self {
            Self::Managed => "managed".into(),
            Self::Docker => "docker".into(),
            Self::External(external) => url(external.text.clone()),
            Self::Elsewhere(place) => url(place.to_string()),
        }
    }
}

/// Without the password.
impl fmt::Display for DatastoreSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed => f.write_str("managed"),
            Self::Docker => f.write_str("docker"),
            Self::External(external) => external.fmt(f),
            Self::Elsewhere(place) => place.fmt(f),
        }
    }
}

impl ExternalUrl {
    /// `Err` is what is allowed.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if !is_url || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(URL);
        }
        let (plain, tls) = Self::split_tls(text)?;
        let config = tokio_postgres::Config::from_str(&plain).map_err(|_| URL)?;
        let ([host], port) = (config.get_hosts(), config.get_ports().first().copied().unwrap_or(DEFAULT_PORT)) else {
            return Err(URL);
        };
        let address = match host {
            Host::Tcp(host) if !host.is_empty() => Address::Tcp { host: host.clone(), port },
            Host::Unix(folder) if folder.is_absolute() => Address::Socket { folder: folder.clone(), port },
            _ => return Err(URL),
        };
        let is_here = address.is_here();
        Ok(Self {
            text: text.to_owned(),
            role: config.get_user().ok_or(URL)?.to_owned(),
            password: String::from_utf8(config.get_password().unwrap_or_default().to_owned()).map_err(|_| URL)?,
            database: config.get_dbname().ok_or(URL)?.to_owned(),
            tls: tls.unwrap_or(if is_here { Tls::Off } else { Tls::Verified { authorities: None } }),
            address,
        })
    }

    /// Whether the server has to prove that it knows the password: nothing else says that it is the right one. Without TLS
    /// any program may have taken its port, and in a folder where anybody may write its socket.
    pub fn requires_scram(&self) -> bool {
        match &self.address {
            Address::Tcp { .. } => self.tls == Tls::Off,
            Address::Socket { folder, .. } => files::mode(folder).map_or(true, |mode| mode & 0o002 != 0),
        }
    }

    /// Whether what goes there can be read on its way over a network.
    pub fn is_open_to_others(&self) -> bool {
        self.tls == Tls::Off && !self.address.is_here()
    }

    /// The URL without what it says of TLS, and that: `None` where it says nothing.
    fn split_tls(text: &str) -> Result<(String, Option<Tls>), &'static str> {
        let Some((before, parameters)) = text.split_once('?') else { return Ok((text.to_owned(), None)) };
        let (mut mode, mut authorities, mut others) = (None, None, Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(URL)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| URL)?.into_owned();
            match name {
                "sslmode" => mode = Some(value),
                "sslrootcert" => authorities = Some(value),
                // Only what says which server it is; how it is used is ours to say.
                "host" | "port" | "user" | "password" | "dbname" => others.push(parameter),
                _ => return Err("possible: the URL may have sslmode, sslrootcert and host after the ?"),
            }
        }
        let authorities = match authorities.as_deref() {
            None | Some("system") => None,
            Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
            Some(_) => return Err(ROOT),
        };
        let tls = match mode.as_deref() {
            Some("disable") => Some(Tls::Off),
            Some("verify-full") => Some(Tls::Verified { authorities }),
            None if authorities.is_some() => Some(Tls::Verified { authorities }),
            None => None,
            // Those between encrypt without telling who is at the other end.
            Some(_) => return Err(SSLMODE),
        };
        let plain = if others.is_empty() { before.to_owned() } else { format!("{before}?{}", others.join("&")) };
        Ok((plain, tls))
    }

    /// Whether two lead to the same database, whoever logs in.
    pub fn is_same_database(&self, other: &Self) -> bool {
        (&self.address, &self.database) == (&other.address, &other.database)
    }
}

/// Without the password; read again it is of the same database.
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

/// What a URL has a meaning for, but for the slash of paths.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl fmt::Debug for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalUrl({self})")
    }
}

impl Address {
    /// On this machine, over no network.
    fn is_here(&self) -> bool {
        match self {
            Self::Socket { .. } => true,
            Self::Tcp { host, .. } => host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback()),
        }
    }

    /// The socket, where it is one.
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
    fn without_tls_the_server_has_to_prove_itself() {
        let of = |text: &str| ExternalUrl::parse(text).unwrap().requires_scram();
        assert!(of("postgres://a@127.0.0.1/b") && of("postgres://a@h/b?sslmode=disable"));
        assert!(!of("postgres://a@h/b") && !of("postgres://a@127.0.0.1/b?sslmode=verify-full"));
        let folder = tempfile::tempdir().unwrap();
        let url = format!("postgres://a@/b?host={}", folder.path().display());
        assert!(!of(&url), "a folder of one user's");
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(of(&url), "a folder of all users'");
    }

    #[test]
    fn a_url_says_who_logs_in_where_and_that_the_server_is_verified() {
        let url = ExternalUrl::parse("postgres://ada:p%40ss@db.example.org/pipelines").unwrap();
        assert_eq!((url.role.as_str(), url.password.as_str(), url.database.as_str()), ("ada", "p@ss", "pipelines"));
        assert_eq!(url.address, Address::Tcp { host: "db.example.org".into(), port: 5432 });
        assert_eq!(url.tls, Tls::Verified { authorities: None });
        assert_eq!(url.to_string(), "postgres://ada@db.example.org:5432/pipelines");
        let of = |text: &str| ExternalUrl::parse(text).unwrap();
        assert_eq!(of("postgres://a@127.0.0.1:5433/b").tls, Tls::Off);
        assert_eq!(of("postgres://a@h/b?sslmode=disable").tls, Tls::Off);
        let own = of("postgresql://a@h/b?sslmode=verify-full&sslrootcert=%2Fca.pem");
        assert_eq!(own.tls, Tls::Verified { authorities: Some("/ca.pem".into()) });
        let socket = of("postgres://a@/b?host=%2Frun%2Fpg&port=5433");
        assert_eq!(socket.address.socket().unwrap(), Path::new("/run/pg/.s.PGSQL.5433"));
        assert_eq!(socket.tls, Tls::Off);
        assert!(own.is_same_database(&of("postgres://other@h/b")) && !own.is_same_database(&of("postgres://a@h/c")));
    }

    #[test]
    fn what_is_shown_leads_to_the_same_database() {
        for text in [
            "postgres://a:secret@h/b",
            "postgres://a%40b:secret@127.0.0.1:5433/my%20data%3F",
            "postgres://a:secret@[::1]:5433/b",
            "postgres://a:secret@/b?host=%2Frun%2Fpg&port=5433",
            "postgres://a:secret@%2Frun%2Fa%20b/b",
        ] {
            let url = ExternalUrl::parse(text).unwrap();
            let again = ExternalUrl::parse(&url.to_string()).unwrap();
            assert!(again.is_same_database(&url) && again.role == url.role, "{text}: {url}");
            assert!(!url.to_string().contains("secret"));
        }
    }

    #[test]
    fn what_is_no_url_of_one_verified_server_is_refused() {
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
    fn the_key_is_a_word_or_a_url_or_where_that_is() {
        let read = |text: &str| DatastoreSetting::read(&serde_yaml::from_str(text).unwrap());
        assert_eq!(read("managed").unwrap(), DatastoreSetting::Managed);
        assert_eq!(read("docker").unwrap(), DatastoreSetting::Docker);
        assert_eq!(read("{url: 'file:/u'}").unwrap(), DatastoreSetting::Elsewhere(SecretPlace::File("/u".into())));
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
