//! The passwords of the cluster's two roles. They are made before the first `initdb` and never
//! change, so no kill can leave a cluster whose password nobody knows.

use super::{APPLICATION_DATABASE, APPLICATION_ROLE, Endpoint, SUPERUSER};
use crate::home::Home;
use crate::sys::{files, random};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("{0} is missing, and the datastore cannot be opened without it")]
    Missing(PathBuf),
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub superuser_password: String,
    pub application_password: String,
}

impl Credentials {
    pub fn load(home: &Home) -> Result<Option<Self>, CredentialsError> {
        let path = home.postgres_credentials();
        let text = files::read_text(&path, 64 * 1024).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => CredentialsError::Damaged { path: path.clone(), detail: source.to_string() },
            _ => CredentialsError::Io { path: path.clone(), source },
        })?;
        text.map(|text| {
            serde_json::from_str(&text).map_err(|error| CredentialsError::Damaged { path, detail: error.to_string() })
        })
        .transpose()
    }

    pub fn require(home: &Home) -> Result<Self, CredentialsError> {
        Self::load(home)?.ok_or_else(|| CredentialsError::Missing(home.postgres_credentials()))
    }

    /// The stored ones, made first if there are none.
    pub fn load_or_create(home: &Home) -> Result<Self, CredentialsError> {
        if let Some(found) = Self::load(home)? {
            return Ok(found);
        }
        let path = home.postgres_credentials();
        let io = |source| CredentialsError::Io { path: path.clone(), source };
        let made = Self { superuser_password: random::hex_256(), application_password: random::hex_256() };
        files::create_private_dir(&home.postgres()).map_err(io)?;
        let text = serde_json::to_vec_pretty(&made).map_err(|error| io(error.into()))?;
        files::write_atomic(&path, &text, 0o600).map_err(io)?;
        Ok(made)
    }

    pub fn superuser(&self, endpoint: &Endpoint, database: &str) -> tokio_postgres::Config {
        endpoint.config(SUPERUSER, &self.superuser_password, database)
    }

    pub fn application(&self, endpoint: &Endpoint) -> tokio_postgres::Config {
        endpoint.config(APPLICATION_ROLE, &self.application_password, APPLICATION_DATABASE)
    }
}
