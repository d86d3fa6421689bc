//! The application's role and database, made at the first start. Each step looks before it acts,
//! so being killed between two of them is nothing.

use super::{APPLICATION_DATABASE, APPLICATION_ROLE, Credentials, Endpoint, PgError};
use tokio_postgres::Client;

/// A connection as the application, with role and database made if they are not there.
pub async fn connect(endpoint: &Endpoint, credentials: &Credentials) -> Result<Client, PgError> {
    let application = credentials.application(endpoint);
    match endpoint.connect(&application).await {
        Err(PgError::WrongPassword | PgError::NoDatabase) => {
            create(endpoint, credentials).await?;
            endpoint.connect(&application).await
        }
        other => other,
    }
}

async fn create(endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PgError> {
    let client = endpoint.connect(&credentials.superuser(endpoint, "postgres")).await?;
    // A failing statement must not put the password into the log.
    client.batch_execute("SET log_min_error_statement = panic").await?;
    let exists = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    if !client.query_one(exists, &[&APPLICATION_ROLE]).await?.get::<_, bool>(0) {
        // The password is hexadecimal, so it needs no quoting that it could break.
        let password = &credentials.application_password;
        client.batch_execute(&format!("CREATE ROLE {APPLICATION_ROLE} LOGIN PASSWORD '{password}'")).await?;
    }
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    if !client.query_one(exists, &[&APPLICATION_DATABASE]).await?.get::<_, bool>(0) {
        client.batch_execute(&format!("CREATE DATABASE {APPLICATION_DATABASE} OWNER {APPLICATION_ROLE}")).await?;
    }
    Ok(())
}
