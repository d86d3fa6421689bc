//! Swaps the names of the application database and the standby on Leoflow's own server. The standby is the database of
//! the state that is not current; it is no replica.

use super::exchange_error::ExchangeError;
use leoflow_postgres::databases::{self, Connections, Sessions};
use leoflow_postgres::{APPLICATION_DATABASE, PgError};

/// Swaps the names of the application database and the standby.
pub async fn swap_in_transaction(
    client: &mut tokio_postgres::Client,
    standby: &str,
    temporary_name: &str,
) -> Result<(), ExchangeError> {
    for name in [APPLICATION_DATABASE, standby] {
        databases::end_sessions(client, Sessions::In(name)).await?;
    }
    let transaction = client.transaction().await.map_err(PgError::from)?;
    for (from, to) in
        [(APPLICATION_DATABASE, temporary_name), (standby, APPLICATION_DATABASE), (temporary_name, standby)]
    {
        let rename = format!("ALTER DATABASE {from} RENAME TO {to}");
        transaction.batch_execute(&rename).await.map_err(PgError::from)?;
    }
    transaction.commit().await.map_err(PgError::from)?;
    Ok(())
}

/// Allows or refuses connections to these databases.
pub async fn allow_connections(
    client: &tokio_postgres::Client,
    names: [&str; 2],
    connections: Connections,
) -> Result<(), PgError> {
    for name in names {
        databases::set_connections(client, name, connections).await?;
    }
    Ok(())
}

/// The object id of a database; `None` if it does not exist.
pub async fn database_oid(client: &tokio_postgres::Client, name: &str) -> Result<Option<u32>, PgError> {
    let row = client.query_opt("SELECT oid FROM pg_database WHERE datname = $1::text::name", &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}
