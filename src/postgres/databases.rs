//! Statements on whole databases and their sessions, most of them sent from a connection to another database.

use crate::PgError;
use crate::identifier::quoted;
use tokio_postgres::{Client, GenericClient};

/// Whether a database accepts connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    Allowed,
    /// Even superusers cannot connect.
    Refused,
}

pub async fn exists(client: &impl GenericClient, name: &str) -> Result<bool, PgError> {
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text::name)";
    Ok(client.query_one(query, &[&name]).await?.get(0))
}

/// Drops a database if it exists and terminates its sessions.
pub async fn drop_if_exists(client: &Client, name: &str) -> Result<(), PgError> {
    Ok(client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name))).await?)
}

/// Allows or refuses new connections to a database; its sessions stay.
pub async fn set_connections(client: &Client, name: &str, connections: Connections) -> Result<(), PgError> {
    let allow = connections == Connections::Allowed;
    Ok(client.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", quoted(name))).await?)
}

/// Size of a database on disk, in bytes; `None` is the connected one.
pub async fn size(client: &impl GenericClient, name: Option<&str>) -> Result<u64, PgError> {
    let query = "SELECT pg_catalog.pg_database_size(coalesce($1::text::name, pg_catalog.current_database()))";
    Ok(u64::try_from(client.query_one(query, &[&name]).await?.get::<_, i64>(0)).unwrap_or(0))
}

/// Sessions to end, never the one that ends them.
#[derive(Debug, Clone, Copy)]
pub enum Sessions<'a> {
    /// Those connected to a database.
    In(&'a str),
    /// Those of a role.
    Of(&'a str),
    /// Those that create a database, of this unquoted name.
    Creating(&'a str),
}

/// Terminates sessions without waiting, and returns how many there were, with those that are still terminating.
pub async fn end_sessions(client: &impl GenericClient, sessions: Sessions<'_>) -> Result<i64, PgError> {
    let (condition, name) = match sessions {
        Sessions::In(name) => ("datname = $1::text::name", name),
        Sessions::Of(name) => ("usename = $1::text::name", name),
        Sessions::Creating(name) => ("query LIKE 'CREATE DATABASE ' || $1::text || ' %'", name),
    };
    let query = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {condition}"
    );
    Ok(client.query_one(&query, &[&name]).await?.get(0))
}
