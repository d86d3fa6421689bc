//! Where this home's data is. `datastore.json` says it where that is not the PostgreSQL under the home, so that another
//! `datastore` in `config.yaml` cannot make an instance begin anew somewhere else without a word.

use super::container::Container;
use crate::config::{self, ConfigError, DatastoreSetting, ExternalUrl};
use crate::home::Home;
use crate::sys::{files, random};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Under the home.
    Managed,
    /// A container of ours.
    Docker,
    /// Somebody else's server, of which we have one database.
    External,
}

/// The content of `datastore.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub kind: Kind,
    /// For people, and to tell one from another: a URL without its password.
    pub shown: String,
    /// Where it is a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Tells this home from others that would use the same database.
    pub home_id: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the datastore's URL cannot be had: {0}")]
    Url(String),
    #[error("config.yaml says that the datastore is {configured}, and the data of this home is in {recorded}")]
    Other { configured: String, recorded: String },
}

/// What this home uses; `None` for what is under it.
pub fn recorded(home: &Home) -> Result<Option<Place>, PlaceError> {
    Ok(read(home)?.filter(|place| place.kind != Kind::Managed))
}

fn read(home: &Home) -> Result<Option<Place>, PlaceError> {
    let path = home.datastore();
    let text = files::read_text(&path, 64 * 1024).map_err(|source| PlaceError::Io { path: path.clone(), source })?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|error| PlaceError::Damaged { path, detail: error.to_string() })
}

/// The kind of it. A record that cannot be read is no reason to look under the home.
pub fn kind(home: &Home) -> Kind {
    match recorded(home) {
        Ok(None) => Kind::Managed,
        Ok(Some(place)) => place.kind,
        Err(_) => Kind::External,
    }
}

/// What `config.yaml` says. The one in the file: nothing goes over it.
pub fn configured(home: &Home) -> Result<DatastoreSetting, PlaceError> {
    Ok(config::read_file(&home.config())?.map(|loaded| loaded.config.datastore).unwrap_or_default())
}

/// The server that this home uses and somebody else looks after.
pub fn external(home: &Home) -> Result<ExternalUrl, PlaceError> {
    let setting = configured(home)?;
    let found = recorded(home)?;
    let url = setting.external().map_err(PlaceError::Url)?;
    match (url, found) {
        (Some(url), Some(place)) if place.is(&url) => Ok(url),
        (Some(url), None) => Ok(url),
        (_, found) => Err(PlaceError::Other {
            configured: setting.to_string(),
            recorded: found.map_or_else(|| "the datastore under it".to_owned(), |place| place.shown),
        }),
    }
}

/// Whether `config.yaml` says what is recorded.
pub fn is_configured(home: &Home) -> Result<bool, PlaceError> {
    let setting = configured(home)?;
    Ok(match recorded(home)? {
        None => setting == DatastoreSetting::Managed,
        Some(Place { kind: Kind::Docker, .. }) => setting == DatastoreSetting::Docker,
        Some(place) => setting.external().map_err(PlaceError::Url)?.is_some_and(|url| place.is(&url)),
    })
}

/// The same where it was made already; else a word that nothing bears.
pub fn recorded_home_id(home: &Home) -> String {
    let made = || files::read_text(&home.run().join(HOME_ID), 64).ok().flatten();
    read(home).ok().flatten().map(|place| place.home_id).or_else(made).unwrap_or_else(|| "none".to_owned())
}

const HOME_ID: &str = "home-id";

/// What tells this home from others. It stays the same.
pub fn home_id(home: &Home) -> Result<String, PlaceError> {
    let path = home.run().join(HOME_ID);
    let io = |source| PlaceError::Io { path: path.clone(), source };
    if let Some(place) = read(home)? {
        return Ok(place.home_id);
    }
    // Made before there is a record, for what has to bear it first.
    if let Some(text) = files::read_text(&path, 64).map_err(io)?.filter(|text| text.len() == 32) {
        return Ok(text);
    }
    let made = hex::encode(random::bytes::<16>());
    files::create_private_dir(&home.run()).map_err(io)?;
    files::write_atomic(&path, made.as_bytes(), 0o600).map_err(io)?;
    Ok(made)
}

impl Place {
    /// The database on somebody else's server that this home comes to use.
    pub fn external(home: &Home, url: &ExternalUrl) -> Result<Self, PlaceError> {
        let home_id = home_id(home)?;
        Ok(Self { kind: Kind::External, shown: url.to_string(), container: None, home_id })
    }

    /// The container that this home comes to use.
    pub fn docker(home: &Home, container: Container) -> Result<Self, PlaceError> {
        let home_id = home_id(home)?;
        Ok(Self { kind: Kind::Docker, shown: container.shown(), container: Some(container), home_id })
    }

    /// Under the home, for one that was elsewhere: it stays the same home.
    pub fn managed(home: &Home) -> Result<Self, PlaceError> {
        let home_id = home_id(home)?;
        Ok(Self { kind: Kind::Managed, shown: "the datastore under the home".to_owned(), container: None, home_id })
    }

    pub fn write(&self, home: &Home) -> Result<(), PlaceError> {
        let io = |source| PlaceError::Io { path: home.datastore(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        files::write_atomic(&home.datastore(), &text, 0o600).map_err(io)
    }

    /// Whoever logs in there.
    pub fn is(&self, url: &ExternalUrl) -> bool {
        let recorded = ExternalUrl::parse(&self.shown);
        self.kind == Kind::External && recorded.is_ok_and(|recorded| recorded.is_same_database(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_in_the_config_is_not_used_without_a_move() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        assert_eq!((recorded(&home).unwrap(), kind(&home)), (None, Kind::Managed));
        let write = |url: &str| std::fs::write(home.config(), format!("datastore:\n  url: {url}\n")).unwrap();
        write("postgres://a:one@h/b");
        let place = Place::external(&home, &external(&home).unwrap()).unwrap();
        place.write(&home).unwrap();
        assert_eq!((recorded(&home).unwrap(), kind(&home)), (Some(place.clone()), Kind::External));
        assert!(!std::fs::read_to_string(home.datastore()).unwrap().contains("one"));
        write("postgres://other:two@h/b");
        assert_eq!(external(&home).unwrap().password, "two", "the same database by another login");
        assert_eq!(Place::external(&home, &external(&home).unwrap()).unwrap().home_id, place.home_id);
        write("postgres://a:one@h/c");
        assert!(matches!(external(&home), Err(PlaceError::Other { .. })));
        std::fs::write(home.config(), "port: 1\n").unwrap();
        assert!(matches!(external(&home), Err(PlaceError::Other { .. })));
        std::fs::write(home.datastore(), "{").unwrap();
        assert!(recorded(&home).is_err() && kind(&home) == Kind::External);
    }
}
