//! Location of this home's data. `datastore.json` records it, so that a changed `datastore` in `config.yaml` cannot
//! silently start an empty instance in another place. Without that file the data is the PostgreSQL under the home.

use super::{APPLICATION_DATABASE, SUPERUSER};
use leoflow_base::config::{self, ConfigError, DatastoreSetting, ExternalUrl, UnreadableSecret};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::random;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// PostgreSQL under the home.
    Managed,
    /// A container of our own.
    Docker,
    /// One database on an external server.
    External,
}

/// Content of `datastore.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub kind: Kind,
    /// Shown to users and compared: a URL without its password.
    #[serde(rename = "shown")]
    pub display_text: String,
    /// Set for a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Distinguishes this home from others that would use the same database.
    pub home_id: String,
}

/// The container's entry in `datastore.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `docker` or `podman`, found on the PATH.
    pub runtime: String,
    pub name: String,
    pub volume: String,
    /// Port on 127.0.0.1.
    pub port: u16,
}

impl Container {
    /// Description for users.
    pub fn description(&self) -> String {
        format!("the container {} with the volume {} ({})", self.name, self.volume, self.runtime)
    }

    /// URL for the relay.
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{APPLICATION_DATABASE}?sslmode=disable", self.port)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot read the datastore's URL: {0}")]
    Url(#[source] UnreadableSecret),
    #[error("config.yaml names the datastore {configured}, but the data of this home is in {recorded}")]
    Other { configured: String, recorded: String },
}

/// Reads the recorded location; `None` for the managed datastore.
pub fn recorded(home: &Home) -> Result<Option<Location>, LocationError> {
    Ok(read(home)?.filter(|location| location.kind != Kind::Managed))
}

/// Reads `datastore.json`; `None` if it does not exist.
fn read(home: &Home) -> Result<Option<Location>, LocationError> {
    let path = home.datastore();
    let text = files::read_text(&path, 64 * 1024).map_err(|source| LocationError::Io { path: path.clone(), source })?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|error| LocationError::Damaged { path, detail: error.to_string() })
}

/// Kind of the datastore. An unreadable record counts as external, so that nothing is started under the home.
pub fn kind(home: &Home) -> Kind {
    match recorded(home) {
        Ok(None) => Kind::Managed,
        Ok(Some(location)) => location.kind,
        Err(_) => Kind::External,
    }
}

/// Reads the datastore from `config.yaml` only; overrides do not apply to it.
pub fn configured(home: &Home) -> Result<DatastoreSetting, LocationError> {
    Ok(config::read_file(&home.config())?.map(|loaded| loaded.config.datastore).unwrap_or_default())
}

/// URL of the external server that this home uses.
pub fn external(home: &Home) -> Result<ExternalUrl, LocationError> {
    let setting = configured(home)?;
    let location = recorded(home)?;
    let url = setting.external().map_err(LocationError::Url)?;
    match (url, location) {
        (Some(url), Some(location)) if location.is_at(&url) => Ok(url),
        (Some(url), None) => Ok(url),
        (_, location) => Err(LocationError::Other {
            configured: setting.to_string(),
            recorded: location.map_or_else(|| "the datastore under it".to_owned(), |location| location.display_text),
        }),
    }
}

/// True when the datastore in `config.yaml` is the recorded one.
pub fn is_configured(home: &Home) -> Result<bool, LocationError> {
    let setting = configured(home)?;
    Ok(match recorded(home)? {
        None => setting == DatastoreSetting::Managed,
        Some(Location { kind: Kind::Docker, .. }) => setting == DatastoreSetting::Docker,
        Some(location) => setting.external().map_err(LocationError::Url)?.is_some_and(|url| location.is_at(&url)),
    })
}

/// Reads the home's id without creating it; `none`, which no home has, if there is no id or it cannot be read.
pub fn recorded_home_id(home: &Home) -> String {
    let unrecorded_id = || files::read_text(&home.run().join(HOME_ID), 64).ok().flatten();
    read(home)
        .ok()
        .flatten()
        .map(|location| location.home_id)
        .or_else(unrecorded_id)
        .unwrap_or_else(|| "none".to_owned())
}

/// File in `run/` with the id of a home that has no `datastore.json`.
const HOME_ID: &str = "home-id";

/// The home's id, created on first use. It never changes.
pub fn home_id(home: &Home) -> Result<String, LocationError> {
    let path = home.run().join(HOME_ID);
    let io = |source| LocationError::Io { path: path.clone(), source };
    if let Some(location) = read(home)? {
        return Ok(location.home_id);
    }
    // The file exists if the id was needed before there was a record.
    if let Some(text) = files::read_text(&path, 64).map_err(io)?.filter(|text| text.len() == 32) {
        return Ok(text);
    }
    let id = hex::encode(random::bytes::<16>());
    files::create_private_dir(&home.run()).map_err(io)?;
    files::write_atomic(&path, id.as_bytes(), 0o600).map_err(io)?;
    Ok(id)
}

impl Location {
    /// Location of a database on an external server.
    pub fn external(home: &Home, url: &ExternalUrl) -> Result<Self, LocationError> {
        Self::new(home, Kind::External, url.to_string(), None)
    }

    /// Location of a container.
    pub fn docker(home: &Home, container: Container) -> Result<Self, LocationError> {
        Self::new(home, Kind::Docker, container.description(), Some(container))
    }

    /// Location of the managed datastore, for a home whose data was elsewhere; the home keeps its id.
    pub fn managed(home: &Home) -> Result<Self, LocationError> {
        Self::new(home, Kind::Managed, "the datastore under the home".to_owned(), None)
    }

    fn new(home: &Home, kind: Kind, display_text: String, container: Option<Container>) -> Result<Self, LocationError> {
        Ok(Self { kind, display_text, container, home_id: home_id(home)? })
    }

    pub fn write(&self, home: &Home) -> Result<(), LocationError> {
        let io = |source| LocationError::Io { path: home.datastore(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        files::write_atomic(&home.datastore(), &text, 0o600).map_err(io)
    }

    /// True if `url` names the recorded database, with any role.
    pub fn is_at(&self, url: &ExternalUrl) -> bool {
        let recorded = ExternalUrl::parse(&self.display_text);
        self.kind == Kind::External && recorded.is_ok_and(|recorded| recorded.is_same_database(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_database_needs_a_move() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        assert_eq!((recorded(&home).unwrap(), kind(&home)), (None, Kind::Managed));
        let write = |url: &str| std::fs::write(home.config(), format!("datastore:\n  url: {url}\n")).unwrap();
        write("postgres://a:one@h/b");
        let location = Location::external(&home, &external(&home).unwrap()).unwrap();
        location.write(&home).unwrap();
        assert_eq!((recorded(&home).unwrap(), kind(&home)), (Some(location.clone()), Kind::External));
        assert!(!std::fs::read_to_string(home.datastore()).unwrap().contains("one"));
        write("postgres://other:two@h/b");
        assert_eq!(external(&home).unwrap().password, "two", "the same database with another login");
        assert_eq!(Location::external(&home, &external(&home).unwrap()).unwrap().home_id, location.home_id);
        write("postgres://a:one@h/c");
        assert!(matches!(external(&home), Err(LocationError::Other { .. })));
        std::fs::write(home.config(), "port: 1\n").unwrap();
        assert!(matches!(external(&home), Err(LocationError::Other { .. })));
        std::fs::write(home.datastore(), "{").unwrap();
        assert!(recorded(&home).is_err() && kind(&home) == Kind::External);
    }
}
