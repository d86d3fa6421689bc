//! How the datastore is logged in to. The passwords of the cluster's two roles are made before the first `initdb` and
//! never change, so no kill can leave a cluster whose password nobody knows. Of another server there is the URL.

use super::place::{self, Kind, PlaceError};
use super::{APPLICATION_DATABASE, APPLICATION_ROLE, Endpoint, PgError, SUPERUSER};
use crate::config::ExternalUrl;
use crate::home::Home;
use crate::sys::{files, random};
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
    #[error("{0} is missing, and the datastore cannot be opened without it")]
    Missing(PathBuf),
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// A role with its password, on one database.
#[derive(Clone)]
pub struct Login {
    pub role: String,
    pub password: String,
    pub database: String,
}

#[derive(Clone)]
pub struct Credentials {
    pub application: Login,
    /// Of a server that is ours alone.
    superuser_password: Option<String>,
    requires_scram: bool,
}

/// `managed-postgres/credentials.json`
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
    /// Whether PostgreSQL's programs accept no login but by SCRAM: servers of ours have no other.
    pub fn requires_scram(&self) -> bool {
        self.requires_scram
    }

    /// Those of a server of ours.
    pub fn load(home: &Home) -> Result<Option<Self>, CredentialsError> {
        let path = home.postgres_credentials();
        let text = files::read_text(&path, 64 * 1024).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => CredentialsError::Damaged { path: path.clone(), detail: source.to_string() },
            _ => CredentialsError::Io { path: path.clone(), source },
        })?;
        let stored: Option<Result<Stored, _>> = text.map(|text| serde_json::from_str(&text));
        let stored = stored.transpose();
        let stored = stored.map_err(|error| CredentialsError::Damaged { path, detail: error.to_string() })?;
        Ok(stored.map(Self::from))
    }

    /// Those of the datastore that the home uses.
    pub fn require(home: &Home) -> Result<Self, CredentialsError> {
        match place::kind(home) {
            Kind::External => Ok(place::external(home)?.into()),
            Kind::Managed | Kind::Docker => {
                Self::load(home)?.ok_or_else(|| CredentialsError::Missing(home.postgres_credentials()))
            }
        }
    }

    /// The stored ones, made first if there are none.
    pub fn load_or_create(home: &Home) -> Result<Self, CredentialsError> {
        if let Some(found) = Self::load(home)? {
            return Ok(found);
        }
        let path = home.postgres_credentials();
        let io = |source| CredentialsError::Io { path: path.clone(), source };
        let made = Stored { superuser_password: random::hex_256(), application_password: random::hex_256() };
        files::create_private_dir(&home.postgres()).map_err(io)?;
        let text = serde_json::to_vec_pretty(&made).map_err(|error| io(error.into()))?;
        files::write_atomic(&path, &text, 0o600).map_err(io)?;
        Ok(made.into())
    }

    pub fn superuser_password(&self) -> Option<&str> {
        self.superuser_password.as_deref()
    }

    /// Whether all of the server is ours, and not only a database of it.
    pub fn has_superuser(&self) -> bool {
        self.superuser_password.is_some()
    }

    /// `None` where the server is somebody else's.
    pub fn superuser(&self, endpoint: &Endpoint, database: &str) -> Option<Config> {
        self.superuser_password.as_ref().map(|password| endpoint.config(SUPERUSER, password, database))
    }

    pub fn application(&self, endpoint: &Endpoint) -> Config {
        let Login { role, password, database } = &self.application;
        let mut config = endpoint.config(role, password, database);
        // Whatever an administrator has set for the role: our tables are there.
        config.options("-c search_path=public");
        config
    }

    /// Of a server that is somebody else's, a login that fails has other reasons than of our own.
    pub fn explain(&self, error: PgError) -> PgError {
        let Login { role, database, .. } = &self.application;
        match error {
            PgError::WrongPassword if !self.has_superuser() => {
                PgError::Far(format!("the datastore refuses the role {role:?}, or its password"))
            }
            PgError::NoDatabase if !self.has_superuser() => {
                PgError::Far(format!("the datastore has no database {database:?}"))
            }
            other => other,
        }
    }

    /// Whoever may make and drop databases, connected to another than the application's.
    pub fn upkeep(&self, endpoint: &Endpoint) -> Config {
        self.superuser(endpoint, MAINTENANCE_DATABASE).unwrap_or_else(|| {
            let Login { role, password, .. } = &self.application;
            endpoint.config(role, password, MAINTENANCE_DATABASE)
        })
    }
}

/// Every server has it, for those who want no other.
const MAINTENANCE_DATABASE: &str = "postgres";
