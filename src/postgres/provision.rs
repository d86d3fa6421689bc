//! The application's role and database, made at the first start. Each step looks before it acts,
//! so being killed between two of them is nothing.

use super::{APPLICATION_DATABASE, APPLICATION_ROLE, Credentials, Endpoint, PgError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A connection as the application, with role and database made if they are not there.
pub async fn connect(endpoint: &Endpoint, credentials: &Credentials) -> Result<Client, PgError> {
    let application = credentials.application(endpoint);
    match endpoint.connect(&application).await {
        Err(PgError::WrongPassword | PgError::NoDatabase) if credentials.has_superuser() => {
            create(endpoint, credentials).await?;
            endpoint.connect(&application).await
        }
        other => other.map_err(|error| credentials.explain(error)),
    }
}

async fn create(endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PgError> {
    let client = endpoint.connect(&credentials.upkeep(endpoint)).await?;
    // A failing statement must not put the password into the log.
    client.batch_execute("SET log_min_error_statement = panic").await?;
    let exists = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    if !client.query_one(exists, &[&APPLICATION_ROLE]).await?.get::<_, bool>(0) {
        // The password is hexadecimal, so it needs no quoting that it could break.
        let password = &credentials.application.password;
        unless_another_did(
            client.batch_execute(&format!("CREATE ROLE {APPLICATION_ROLE} LOGIN PASSWORD '{password}'")).await,
        )?;
    }
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    if !client.query_one(exists, &[&APPLICATION_DATABASE]).await?.get::<_, bool>(0) {
        let create = format!("CREATE DATABASE {APPLICATION_DATABASE} OWNER {APPLICATION_ROLE}");
        unless_another_did(client.batch_execute(&create).await)?;
    }
    Ok(())
}

/// Two that come first at once see nothing and both begin; the second finds it made.
fn unless_another_did(created: Result<(), tokio_postgres::Error>) -> Result<(), PgError> {
    let made = [&SqlState::DUPLICATE_OBJECT, &SqlState::DUPLICATE_DATABASE, &SqlState::UNIQUE_VIOLATION];
    match created {
        Err(error) if error.code().is_some_and(|code| made.contains(&code)) => Ok(()),
        other => Ok(other?),
    }
}
