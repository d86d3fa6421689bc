//! Statements on whole databases, sent from a connection to another database.

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
