//! `leoflow connections test` without a provider's hook: connects to the host's port. Does not try the login.

use leoflow_engine::store::secret::connections::Connection;
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

/// Returns host and port. The host of an HTTP connection may be a whole URL, and its scheme may be in `schema`.
fn host_and_port(connection: &Connection) -> Result<(String, u16), String> {
    let host = connection.host.as_deref().unwrap_or_default().trim();
    if host.is_empty() {
        return Err("the connection has no host".to_owned());
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
    match port {
        Some(port) => Ok((name.trim_matches(['[', ']']).to_owned(), port)),
        None => Err(format!("the connection has no port, and the type {} has no default port", connection.conn_type)),
    }
}

/// Returns `host:port` when a TCP connection succeeds, else why it failed.
pub async fn reach(connection: &Connection) -> Result<String, String> {
    let (host, port) = host_and_port(connection)?;
    let reached = async {
        let mut last_error = format!("{host} has no address");
        let addresses = lookup_host((host.as_str(), port)).await.map_err(|error| format!("{host}: {error}"))?;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(format!("{host}:{port}")),
                Err(error) => last_error = format!("{address}: {error}"),
            }
        }
        Err(last_error)
    };
    let outcome = tokio::time::timeout(TIMEOUT, reached).await;
    outcome.unwrap_or_else(|_| Err(format!("{host}:{port} did not respond within {} s", TIMEOUT.as_secs())))
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
            |conn_type: &str, host: &str, port, schema| host_and_port(&connection(conn_type, host, port, schema));
        assert_eq!(host_and_port("postgres", "db.local", None, None), Ok(("db.local".into(), 5432)));
        assert_eq!(host_and_port("postgres", "db.local", Some(6000), Some("data")), Ok(("db.local".into(), 6000)));
        assert_eq!(host_and_port("http", "https://api.example/v1", None, None), Ok(("api.example".into(), 443)));
        assert_eq!(host_and_port("http", "api.example:8080", None, None), Ok(("api.example".into(), 8080)));
        assert_eq!(host_and_port("http", "api.example", None, Some("https")), Ok(("api.example".into(), 443)));
        assert_eq!(host_and_port("redis", "[::1]:7000", None, None), Ok(("::1".into(), 7000)));
        assert!(
            host_and_port("generic", "somewhere", None, None).is_err() && host_and_port("fs", " ", None, None).is_err()
        );
    }
}
