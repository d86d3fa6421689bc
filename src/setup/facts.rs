//! What is there now. Reads, changes nothing.

use super::install_self;
use super::receipt::{Receipt, ReceiptError};
use super::scaffold;
use crate::config::{self, Config, ConfigError, DatastoreSetting};
use crate::home::journal::{self, JournalError, Operation};
use crate::home::{Home, instances};
use crate::postgres::acquire::Sources;
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::place::{self, Kind, Place, PlaceError};
use crate::postgres::{Installation, install};
use crate::python::{self, PackageSource};
use crate::sys::files;
use crate::web_ui::{self, UiSource};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFact {
    Absent,
    Present(Box<Config>),
}

/// Everything that planning depends on.
#[derive(Debug, Clone)]
pub struct Facts {
    pub home: PathBuf,
    pub instance_name: Option<String>,
    pub config: ConfigFact,
    pub receipt: Option<Receipt>,
    pub cluster: ClusterState,
    /// What `config.yaml` says of the datastore.
    pub datastore: DatastoreSetting,
    /// Where the data is, when it is not under the home.
    pub place: Option<Place>,
    /// Whether that is what `config.yaml` says.
    pub place_is_configured: bool,
    pub credentials_present: bool,
    pub installation: Option<Installation>,
    /// Whether getting one takes longer than anything else: it comes over the network.
    pub postgres_is_far: bool,
    /// Or not wanted.
    pub packages_present: bool,
    /// The same of Airflow's web UI.
    pub ui_present: bool,
    /// The version that `bin/` leads to, if it leads to one.
    pub installed_version: Option<String>,
    pub own_version: String,
    /// Whether the installed binary of our own version is byte for byte this one.
    pub own_version_is_installed: bool,
    pub workspace: PathBuf,
    pub workspace_exists: bool,
    /// Or holds nothing but the starter project, as an interrupted run leaves it.
    pub workspace_is_empty: bool,
    /// The steps that an interrupted run had begun.
    pub unfinished: Option<Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// `workspace` is the one to use where the config does not name one. Whether the installed binary
/// is this one is only looked at when asked for: it means reading both.
pub fn gather(home: &Home, own_version: &str, workspace: &Path, compare_binary: bool) -> Result<Facts, FactsError> {
    // What goes over the file is not setup's to write into it.
    let config = config::read_file(&home.config())?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone()).unwrap_or_else(|| workspace.to_owned());
    let place = place::recorded(home)?;
    Ok(Facts {
        home: home.root().to_owned(),
        instance_name: instances::name_of(home).filter(|name| name != instances::DEFAULT),
        receipt: Receipt::load(home)?,
        cluster: cluster::state(home),
        place_is_configured: place.is_none() || place::is_configured(home)?,
        datastore: config.as_ref().map(|config| config.datastore.clone()).unwrap_or_default(),
        credentials_present: home.postgres_credentials().exists()
            || place.as_ref().is_some_and(|place| place.kind == Kind::External),
        place,
        installation: install::installed(home),
        postgres_is_far: Sources::from_environment().are_far(),
        packages_present: python::installed_packages(home).is_some()
            || PackageSource::from_environment() == PackageSource::None,
        ui_present: web_ui::installed(home).is_some() || UiSource::from_environment() == UiSource::None,
        installed_version: install_self::installed_version(home),
        own_version: own_version.to_owned(),
        own_version_is_installed: compare_binary && install_self::is_installed(home, own_version),
        workspace_exists: workspace.exists(),
        workspace_is_empty: scaffold::is_untouched(&workspace),
        workspace,
        unfinished: journal::unfinished(home)?
            .filter(|entry| entry.operation == Operation::Setup)
            .map(|entry| entry.steps.into_iter().take(entry.at + 1).collect()),
        config: match config {
            Some(config) => ConfigFact::Present(Box::new(config)),
            None => ConfigFact::Absent,
        },
    })
}

/// Whether `config.yaml` is there but says nothing, as after a cut or a slip.
pub fn config_is_blank(home: &Home) -> bool {
    files::read_text(&home.config(), 1024 * 1024).ok().flatten().is_some_and(|text| text.trim().is_empty())
}
