//! Creates the application's role and database on the first start. Each step checks before it acts, so a kill between
//! two steps is harmless.

use crate::{APPLICATION_DATABASE, APPLICATION_ROLE, Credentials, Endpoint, PgError, cluster, databases, locks};
use leoflow_base::home::Home;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Like [`connect`], but creates role and database first in a new cluster of the home, so that the server's log has no
/// failed login.
pub async fn connect_in(home: &Home, endpoint: &Endpoint, credentials: &Credentials) -> Result<Client, PgError> {
    if credentials.has_superuser() && cluster::is_new(home) {
        create(endpoint, credentials).await?;
    }
    connect(endpoint, credentials).await
}

/// Connects as the application; on a server that Leoflow manages, creates role and database if they are missing.
pub async fn connect(endpoint: &Endpoint, credentials: &Credentials) -> Result<Client, PgError> {
    let mut application = credentials.application(endpoint);
    application.options(locks::options("public"));
    match endpoint.connect(&application).await {
        Err(PgError::WrongPassword | PgError::NoDatabase) if credentials.has_superuser() => {
            create(endpoint, credentials).await?;
            endpoint.connect(&application).await
        }
        other => other.map_err(|error| credentials.explain(error)),
    }
}

/// Creates role and database if they are missing.
async fn create(endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PgError> {
    let mut upkeep = credentials.upkeep(endpoint);
    let client = endpoint.connect(upkeep.options(locks::options("pg_catalog"))).await?;
    // Keeps the password of a failing statement out of the log.
    client.batch_execute("SET log_min_error_statement = panic").await?;
    let exists = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    if !client.query_one(exists, &[&APPLICATION_ROLE]).await?.get::<_, bool>(0) {
        // The password is hexadecimal and needs no quoting.
        let password = &credentials.application.password;
        ignore_existing(
            client.batch_execute(&format!("CREATE ROLE {APPLICATION_ROLE} LOGIN PASSWORD '{password}'")).await,
        )?;
    }
    if !databases::exists(&client, APPLICATION_DATABASE).await? {
        let create = format!("CREATE DATABASE {APPLICATION_DATABASE} OWNER {APPLICATION_ROLE}");
        ignore_existing(client.batch_execute(&create).await)?;
    }
    Ok(())
}

/// Two first starts may both try to create; the second error counts as success.
fn ignore_existing(created: Result<(), tokio_postgres::Error>) -> Result<(), PgError> {
    let already_exists = [&SqlState::DUPLICATE_OBJECT, &SqlState::DUPLICATE_DATABASE, &SqlState::UNIQUE_VIOLATION];
    match created {
        Err(error) if error.code().is_some_and(|code| already_exists.contains(&code)) => Ok(()),
        other => Ok(other?),
    }
}
