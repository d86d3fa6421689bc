//! The test of a connection without a provider's hook: connects to the host's port. Does not try the login.

use leoflow_engine::store::secret::connections::Connection;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};

/// Time limit for connecting.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The default port of a connection type or URL scheme.
fn default_port(conn_type: &str) -> Option<u16> {
    Some(match conn_type {
        "ftp" => 21,
        "ssh" | "sftp" => 22,
        "smtp" => 25,
        "http" => 80,
        "imap" => 143,
        "ldap" => 389,
        "https" => 443,
        "mssql" => 1433,
        "oracle" => 1521,
        "mysql" => 3306,
        "postgres" | "postgresql" => 5432,
        "redis" => 6379,
        "kafka" => 9092,
        "elasticsearch" => 9200,
        "mongo" => 27017,
        _ => return None,
    })
}

/// Why a connection's host cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error("the connection has no host")]
    NoHost,
    #[error("the connection has no port, and the type {0} has no default port")]
    NoPort(String),
    #[error("{host} has no address")]
    NoAddress { host: String },
    /// `place` is the host, or the address that was tried last.
    #[error("{place}: {source}")]
    Io { place: String, source: io::Error },
    #[error("{place} did not respond within {} s", TIMEOUT.as_secs())]
    Timeout { place: String },
}

/// Returns host and port. The host of an HTTP connection may be a whole URL, and its scheme may be in `schema`.
fn host_and_port(connection: &Connection) -> Result<(String, u16), ReachError> {
    let host = connection.host.as_deref().unwrap_or_default().trim();
    if host.is_empty() {
        return Err(ReachError::NoHost);
    }
    let (scheme, rest) = host.split_once("://").map_or((None, host), |(scheme, rest)| (Some(scheme), rest));
    let authority = rest.split('/').next().unwrap_or_default();
    let (name, port) = match authority.rsplit_once(':') {
        // The colons of a bare IPv6 address separate no port.
        _ if authority.parse::<Ipv6Addr>().is_ok() => (authority, None),
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
        _ => (authority, None),
    };
    let schema = connection.schema.as_deref().filter(|_| connection.conn_type == "http");
    let port = connection
        .port
        .and_then(|port| u16::try_from(port).ok())
        .or(port)
        .or_else(|| scheme.or(schema).and_then(default_port))
        .or_else(|| default_port(&connection.conn_type));
    let port = port.ok_or_else(|| ReachError::NoPort(connection.conn_type.clone()))?;
    Ok((name.trim_matches(['[', ']']).to_owned(), port))
}

/// Returns `host:port` when a TCP connection succeeds, else why it failed.
pub async fn reach(connection: &Connection) -> Result<String, ReachError> {
    let (host, port) = host_and_port(connection)?;
    let io_error = |place: String| |source| ReachError::Io { place, source };
    let place = format!("{host}:{port}");
    let reached = async {
        let mut last_error = ReachError::NoAddress { host: host.clone() };
        for address in lookup_host((host.as_str(), port)).await.map_err(io_error(host.clone()))? {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(place.clone()),
                Err(error) => last_error = io_error(address.to_string())(error),
            }
        }
        Err(last_error)
    };
    let outcome = tokio::time::timeout(TIMEOUT, reached).await;
    outcome.unwrap_or_else(|_| Err(ReachError::Timeout { place: place.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(conn_type: &str, host: &str, port: Option<i32>, schema: Option<&str>) -> Connection {
        Connection {
            connection_id: "x".into(),
            conn_type: conn_type.into(),
            description: None,
            host: Some(host.into()),
            login: None,
            schema: schema.map(str::to_owned),
            port,
            password: None,
            extra: None,
        }
    }

    #[test]
    fn finds_host_and_port_as_a_provider_does() {
        let host_and_port =
            |conn_type: &str, host: &str, port, schema| host_and_port(&connection(conn_type, host, port, schema)).ok();
        assert_eq!(host_and_port("postgres", "db.local", None, None), Some(("db.local".into(), 5432)));
        assert_eq!(host_and_port("postgres", "db.local", Some(6000), Some("data")), Some(("db.local".into(), 6000)));
        assert_eq!(host_and_port("http", "https://api.example/v1", None, None), Some(("api.example".into(), 443)));
        assert_eq!(host_and_port("http", "api.example:8080", None, None), Some(("api.example".into(), 8080)));
        assert_eq!(host_and_port("http", "api.example", None, Some("https")), Some(("api.example".into(), 443)));
        assert_eq!(host_and_port("redis", "[::1]:7000", None, None), Some(("::1".into(), 7000)));
        assert!(
            host_and_port("generic", "somewhere", None, None).is_none()
                && host_and_port("fs", " ", None, None).is_none()
        );
    }
}
