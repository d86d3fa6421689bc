//! Access to a running datastore, for connections and for PostgreSQL's own client programs.

use super::install::tools::clean_command;
use super::{Credentials, Endpoint, Installation, Login, PgError, SOCKET_PORT, locks};
use std::process::Command;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

/// Endpoint, credentials and installation of the datastore.
#[derive(Clone)]
pub struct Access {
    pub endpoint: Endpoint,
    pub credentials: Credentials,
    pub installation: Installation,
}

impl Access {
    /// Login of the application's role.
    pub fn application(&self) -> Login {
        self.credentials.application.clone()
    }

    /// Connects to the application's database or one with equally trusted content.
    pub async fn connect(&self, login: &Login) -> Result<Client, PgError> {
        // Overrides settings that the database's owner made for all connections. pg_catalog is searched first when it
        // is not named; new objects go into public.
        self.endpoint.connect(&self.config(login, locks::options("public"))).await
    }

    /// Connects to a database with untrusted content: no name lookup can find an object of its schemas, and statements
    /// time out after an hour.
    pub async fn connect_untrusted(&self, login: &Login) -> Result<Client, PgError> {
        let options = locks::options("pg_catalog") + " -c statement_timeout=1h";
        self.endpoint.connect(&self.config(login, options)).await
    }

    /// Adds to the error of a statement that waited too long for a lock which session holds the lock.
    pub async fn explain<T>(&self, result: Result<T, impl Into<PgError>>) -> Result<T, PgError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error.into(),
        };
        if error.sql_state() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(error);
        }
        match self.connect(&self.application()).await {
            Ok(client) => Err(locks::explain(&client, error).await),
            Err(_) => Err(error),
        }
    }

    fn config(&self, login: &Login, options: String) -> Config {
        let mut config = self.endpoint.config(&login.role, &login.password, &login.database);
        config.options(options);
        config
    }

    /// Connects as superuser for maintenance. Must never run statements that came from a file.
    pub async fn superuser(&self, database: &str) -> Result<Client, PgError> {
        self.maintain(self.credentials.superuser(&self.endpoint, database).ok_or(PgError::NotManaged)?).await
    }

    /// Connects for maintenance; on an external server as the application role.
    pub async fn upkeep(&self) -> Result<Client, PgError> {
        self.maintain(self.credentials.upkeep(&self.endpoint)).await
    }

    async fn maintain(&self, mut config: Config) -> Result<Client, PgError> {
        self.endpoint.connect(config.options(locks::options("pg_catalog"))).await
    }

    /// True when Leoflow manages the whole server, not only a database.
    pub fn owns_server(&self) -> bool {
        self.credentials.has_superuser()
    }

    /// Builds a command for one of PostgreSQL's client programs: without the user's settings, and with the password
    /// hidden from other users.
    pub fn program(&self, name: &str, login: &Login) -> Command {
        let mut command = clean_command(&self.installation.program(name));
        command
            .env("PGHOST", &self.endpoint.socket_folder)
            .env("PGPORT", SOCKET_PORT.to_string())
            .env("PGUSER", &login.role)
            .env("PGPASSWORD", &login.password)
            .env("PGDATABASE", &login.database)
            .env("PGCONNECT_TIMEOUT", "10");
        if self.credentials.requires_scram() {
            command.env("PGREQUIREAUTH", super::external::scram::METHOD);
        }
        command
    }
}
