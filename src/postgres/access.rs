//! Everything that is needed to talk to a datastore that answers: for connections, and for
//! PostgreSQL's own client programs.

use super::tools::clean_command;
use super::{Credentials, Endpoint, Installation, Login, PgError, SOCKET_PORT};
use std::process::Command;
use tokio_postgres::{Client, Config};

/// Where it listens, its passwords, and its programs.
#[derive(Clone)]
pub struct Access {
    pub endpoint: Endpoint,
    pub credentials: Credentials,
    pub installation: Installation,
}

impl Access {
    pub fn application(&self) -> Login {
        self.credentials.application.clone()
    }

    pub async fn connect(&self, login: &Login) -> Result<Client, PgError> {
        // Above what a database's owner could have set for everybody who connects. pg_catalog comes first
        // where it is not named; what is made is made in public.
        self.endpoint.connect(&self.config(login, "-c search_path=public")).await
    }

    /// To a database that a stranger may have filled: no name is looked up where one of the stranger's
    /// could be found, and no statement goes on for ever.
    pub async fn connect_warily(&self, login: &Login) -> Result<Client, PgError> {
        self.endpoint.connect(&self.config(login, "-c search_path=pg_catalog -c statement_timeout=1h")).await
    }

    fn config(&self, login: &Login, options: &str) -> Config {
        let mut config = self.endpoint.config(&login.role, &login.password, &login.database);
        config.options(options);
        config
    }

    /// A connection for our own upkeep. Nothing that came from a file may be run over it.
    pub async fn superuser(&self, database: &str) -> Result<Client, PgError> {
        let mut config = self.credentials.superuser(&self.endpoint, database).ok_or(PgError::NotOurs)?;
        config.options("-c search_path=pg_catalog");
        self.endpoint.connect(&config).await
    }

    /// The same where the server may be somebody else's: as the application, with what rights that has.
    pub async fn upkeep(&self) -> Result<Client, PgError> {
        let mut config = self.credentials.upkeep(&self.endpoint);
        config.options("-c search_path=pg_catalog");
        self.endpoint.connect(&config).await
    }

    /// Whether the server is ours, and not only a database of it.
    pub fn is_ours(&self) -> bool {
        self.credentials.has_superuser()
    }

    /// One of PostgreSQL's client programs, with nothing of the user's own settings and the password
    /// where other users cannot read it.
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
            command.env("PGREQUIREAUTH", super::scram::METHOD);
        }
        command
    }
}
