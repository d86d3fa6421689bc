//! Logins of the datastore. The passwords of the cluster's two roles are created before the first `initdb` and never
//! change, so a kill cannot leave a cluster with an unknown password. For an external server the URL has them.

use super::location::{self, Kind, LocationError};
use super::{APPLICATION_DATABASE, APPLICATION_ROLE, Endpoint, PgError, SUPERUSER};
use leoflow_base::config::ExternalUrl;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::random;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use tokio_postgres::Config;

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("{0} is missing and required to open the datastore")]
    Missing(PathBuf),
    #[error(transparent)]
    Location(#[from] LocationError),
}

/// A role, its password and a database.
#[derive(Clone)]
pub struct Login {
    pub role: String,
    pub password: String,
    pub database: String,
}

#[derive(Clone)]
pub struct Credentials {
    pub application: Login,
    /// Password of the superuser, for a server that Leoflow manages.
    superuser_password: Option<String>,
    requires_scram: bool,
}

/// Content of `managed-postgres/credentials.json`.
#[derive(Serialize, Deserialize)]
struct Stored {
    superuser_password: String,
    application_password: String,
}

impl From<Stored> for Credentials {
    fn from(stored: Stored) -> Self {
        let application = Login {
            role: APPLICATION_ROLE.to_owned(),
            password: stored.application_password,
            database: APPLICATION_DATABASE.to_owned(),
        };
        Self { application, superuser_password: Some(stored.superuser_password), requires_scram: true }
    }
}

impl From<ExternalUrl> for Credentials {
    fn from(url: ExternalUrl) -> Self {
        let requires_scram = url.requires_scram();
        let ExternalUrl { role, password, database, .. } = url;
        Self { application: Login { role, password, database }, superuser_password: None, requires_scram }
    }
}

impl Credentials {
    /// True when clients must accept only SCRAM; managed servers offer nothing else.
    pub fn requires_scram(&self) -> bool {
        self.requires_scram
    }

    /// Loads the credentials of a managed server; `None` if they do not exist.
    pub fn load(home: &Home) -> Result<Option<Self>, CredentialsError> {
        let path = home.postgres_credentials();
        let stored: Option<Stored> = files::read_json(&path, 64 * 1024).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => CredentialsError::Damaged { path, detail: source.to_string() },
            _ => CredentialsError::Io { path, source },
        })?;
        Ok(stored.map(Self::from))
    }

    /// Loads the credentials of the datastore that the home uses.
    pub fn require(home: &Home) -> Result<Self, CredentialsError> {
        match location::kind(home) {
            Kind::External => Ok(location::external(home)?.into()),
            Kind::Managed | Kind::Docker => {
                Self::load(home)?.ok_or_else(|| CredentialsError::Missing(home.postgres_credentials()))
            }
        }
    }

    /// Loads the stored credentials, or creates them.
    pub fn load_or_create(home: &Home) -> Result<Self, CredentialsError> {
        if let Some(credentials) = Self::load(home)? {
            return Ok(credentials);
        }
        let path = home.postgres_credentials();
        let io = |source| CredentialsError::Io { path: path.clone(), source };
        let stored = Stored { superuser_password: random::hex_256(), application_password: random::hex_256() };
        files::create_private_dir(&home.postgres()).map_err(io)?;
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| io(error.into()))?;
        files::write_atomic(&path, &text, 0o600).map_err(io)?;
        Ok(stored.into())
    }

    pub fn superuser_password(&self) -> Option<&str> {
        self.superuser_password.as_deref()
    }

    /// True when Leoflow manages the whole server, not only a database.
    pub fn has_superuser(&self) -> bool {
        self.superuser_password.is_some()
    }

    /// Configuration of a superuser connection; `None` for an external server.
    pub fn superuser(&self, endpoint: &Endpoint, database: &str) -> Option<Config> {
        self.superuser_password.as_ref().map(|password| endpoint.config(SUPERUSER, password, database))
    }

    /// Configuration of a connection as the application's role.
    pub fn application(&self, endpoint: &Endpoint) -> Config {
        let Login { role, password, database } = &self.application;
        let mut config = endpoint.config(role, password, database);
        // Overrides an administrator's setting for the role: our tables are in public.
        config.options("-c search_path=public");
        config
    }

    /// Explains a failed login to an external server, which has other causes than on a managed one.
    pub(crate) fn explain(&self, error: PgError) -> PgError {
        let Login { role, database, .. } = &self.application;
        match error {
            PgError::WrongPassword if !self.has_superuser() => {
                PgError::ExternalServer(format!("the datastore rejects the role {role:?} or its password"))
            }
            PgError::NoDatabase if !self.has_superuser() => {
                PgError::ExternalServer(format!("the datastore has no database {database:?}"))
            }
            other => other,
        }
    }

    /// Configuration of a connection for creating and dropping databases: to the maintenance database, as superuser if
    /// there is one.
    pub fn upkeep(&self, endpoint: &Endpoint) -> Config {
        self.superuser(endpoint, MAINTENANCE_DATABASE).unwrap_or_else(|| {
            let Login { role, password, .. } = &self.application;
            endpoint.config(role, password, MAINTENANCE_DATABASE)
        })
    }
}

/// The maintenance database that every server has.
const MAINTENANCE_DATABASE: &str = "postgres";
