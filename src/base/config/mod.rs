//! `config.yaml`: reads, checks and changes it.

mod backup;
mod cadence;
mod copies;
mod datastore;
mod document;
mod edit;
mod history;
mod keys;
mod layers;
#[cfg(test)]
mod layers_tests;
pub mod leoflow_yaml;
mod load;
mod notify;
mod origin;
mod overdue;
mod recipient;
mod renamed;
pub mod running_settings;
mod secret;
mod secret_references;
mod settings;
mod update;
mod upgrade;

pub use backup::BackupSettings;
pub use cadence::{Cadence, duration};
pub use copies::{AddressError, CopyAddress, CopyPlace};
pub use datastore::{Address, DatastoreSetting, ExternalUrl, Tls};
pub use document::Problem;
pub use edit::{EditError, remove_key, remove_subkey, set_keys};
pub use history::{HistorySettings, Retention};
pub use keys::{DEPRECATED, Deprecated};
pub use layers::{
    check_for_process, load, load_files, load_first, load_for_process, load_with_secrets, problems_of_each,
    variable_named, variable_of,
};
pub use load::{Config, ConfigError, Loaded, parse, read_file};
pub(crate) use notify::read_project_rules;
pub use notify::{NotifyEvent, NotifyRule, NotifySettings, NotifyTarget};
pub use origin::Origin;
pub use overdue::Overdue;
pub use recipient::{Recipient, SecretError, SecretReference, UnreadableSecret};
pub use renamed::with_new_names;
pub use secret::Secret;
pub use secret_references::self_contained;
pub use settings::{SECRETS, SETTINGS, Setting, SettingError};
pub(crate) use update::locked;
pub use update::{UpdateError, exchange, replace, rewrite, set_secret_reference, update};
pub use upgrade::{Channel, UpgradeSettings};

use crate::build_info::build_info;

/// Name of the instance, or the default name.
pub fn instance_name(config: Option<&Config>) -> &str {
    config.and_then(|config| config.instance_name.as_deref()).unwrap_or("leoflow")
}

/// The URL or folder of releases: the setting, or that of the build.
pub fn release_host(config: Option<&Config>) -> Option<&str> {
    config.and_then(|config| config.upgrade.from.as_deref()).or(build_info().releases_url)
}

/// Size limit of a config file, or of the file that a secret's reference names, in bytes.
const SIZE_LIMIT: u64 = 1024 * 1024;
/// Default port of the web server.
pub const DEFAULT_PORT: u16 = 8088;
/// Airflow's default, `core.max_map_length`.
pub const DEFAULT_MAX_MAP_LENGTH: u64 = 1024;
pub const DEFAULT_ADMIN_EMAIL: &str = "admin@leoflow.local";
