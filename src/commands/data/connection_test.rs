//! `leoflow connections test`: whether the other end can be reached from here. A login is the provider's to try.

use crate::engine::store::connections::Connection;
use std::net::Ipv6Addr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};

const PATIENCE: Duration = Duration::from_secs(10);

/// The port that a type of connection has where none is given.
fn usual_port(conn_type: &str) -> Option<u16> {
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

/// Host and port. The host of an HTTP connection may be a whole address, and its scheme may be in `schema`.
fn place(connection: &Connection) -> Result<(String, u16), String> {
    let host = connection.host.as_deref().unwrap_or_default().trim();
    if host.is_empty() {
        return Err("it has no host, so there is nothing to reach".to_owned());
    }
    let (scheme, rest) = host.split_once("://").map_or((None, host), |(scheme, rest)| (Some(scheme), rest));
    let authority = rest.split('/').next().unwrap_or_default();
    let (name, port) = match authority.rsplit_once(':') {
        // Colons of an address are none before a port.
        _ if authority.parse::<Ipv6Addr>().is_ok() => (authority, None),
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
        _ => (authority, None),
    };
    let schema = connection.schema.as_deref().filter(|_| connection.conn_type == "http");
    let port = connection
        .port
        .and_then(|port| u16::try_from(port).ok())
        .or(port)
        .or_else(|| scheme.or(schema).and_then(usual_port))
        .or_else(|| usual_port(&connection.conn_type));
    match port {
        Some(port) => Ok((name.trim_matches(['[', ']']).to_owned(), port)),
        None => Err(format!("it has no port, and {} has no usual one", connection.conn_type)),
    }
}

/// Where it was reached, or why not.
pub async fn reach(connection: &Connection) -> Result<String, String> {
    let (host, port) = place(connection)?;
    let reached = async {
        let mut last = format!("{host} has no address");
        let addresses = lookup_host((host.as_str(), port)).await.map_err(|error| format!("{host}: {error}"))?;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(format!("{host}:{port}")),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    };
    let in_time = tokio::time::timeout(PATIENCE, reached).await;
    in_time.unwrap_or_else(|_| Err(format!("{host}:{port} does not answer within {} s", PATIENCE.as_secs())))
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
    fn the_place_is_what_a_provider_would_use() {
        let place = |conn_type: &str, host: &str, port, schema| place(&connection(conn_type, host, port, schema));
        assert_eq!(place("postgres", "db.local", None, None), Ok(("db.local".into(), 5432)));
        assert_eq!(place("postgres", "db.local", Some(6000), Some("data")), Ok(("db.local".into(), 6000)));
        assert_eq!(place("http", "https://api.example/v1", None, None), Ok(("api.example".into(), 443)));
        assert_eq!(place("http", "api.example:8080", None, None), Ok(("api.example".into(), 8080)));
        assert_eq!(place("http", "api.example", None, Some("https")), Ok(("api.example".into(), 443)));
        assert_eq!(place("redis", "[::1]:7000", None, None), Ok(("::1".into(), 7000)));
        assert!(place("generic", "somewhere", None, None).is_err() && place("fs", " ", None, None).is_err());
    }
}
