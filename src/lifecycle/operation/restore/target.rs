//! The home and the workspace that a restore writes to.

use super::{ArchiveSettings, Force, RestoreRequest};
use crate::backup::restore::obstacles::{self, Obstacle};
use crate::backup::restore::restore_plan::{self, Machine, Protected, RestoreFacts};
use crate::backup::{Manifest, RestoreError};
use crate::operation::{LostConfig, OperationContext, OperationError};
use crate::setup::{self, Receipt};
use crate::upgrade::rollback::capacity;
use leoflow_base::config::{self, Config, DatastoreSetting};
use leoflow_base::home::{Home, absolute_workspace, check_workspace, instances, journal};
use leoflow_base::protocol::child::RESTORE_OF_ROLLBACK;
use leoflow_base::sys::fs::{disk, files};
use leoflow_base::sys::{env_vars, random};
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::credentials::{Credentials, CredentialsError};
use leoflow_postgres::location::{self, Kind};
use leoflow_postgres::schema::{embedded, known};
use std::path::{Path, PathBuf};

/// The home and the workspace, as they are before the restore.
pub struct Target {
    pub config: Option<Config>,
    pub lost_config: Option<LostConfig>,
    /// Why the existing datastore cannot be opened, judged by its files. A restore with `--force` moves it away.
    pub unreadable: Option<String>,
    pub workspace: PathBuf,
    /// True when the home holds an instance in use.
    pub is_set_up: bool,
    pub has_datastore: bool,
    workspace_existed: bool,
    /// True when the workspace has more than the untouched example project.
    workspace_in_use: bool,
    /// True when the workspace is the configured one of this home.
    workspace_is_ours: bool,
    /// The port after the restore; `None` keeps the backup's port.
    port: Option<u16>,
    upgrade_from: Option<String>,
    archive_settings: ArchiveSettings,
    force: Force,
}

impl Target {
    /// Finds the target from the request, the configuration and the setup receipt.
    pub fn find(home: &Home, request: &RestoreRequest<'_>) -> Result<Self, OperationError> {
        let is_forced = request.force == Force::Yes;
        let cluster = cluster::state(home);
        let cluster_exists = !matches!(cluster, ClusterState::Absent | ClusterState::OtherMajor(_));
        let lost_config = lost_config(home).filter(|_| is_forced && cluster_exists);
        // A damaged location record is an error here, before anything is changed.
        if let (Some(recorded_location), Some(lost_config)) = (location::recorded(home)?, lost_config) {
            // Only the lost file says how to reach the data.
            return Err(OperationError::DataElsewhere { lost_config, datastore: recorded_location.display_text });
        }
        let loaded = match lost_config {
            Some(_) => None,
            // Files that override config.yaml are not part of the restore.
            None => config::read_file(&home.config())?,
        };
        let upgrade_from = loaded.as_ref().and_then(|loaded| config::Setting::find("upgrade.from")?.value_in(loaded));
        let config = loaded.map(|loaded| loaded.config);
        let receipt = Receipt::load(home)?;
        let configured = match (&config, &receipt) {
            (Some(config), _) => config.workspace.clone(),
            (None, Some(receipt)) if lost_config.is_some() => Some(receipt.workspace.clone()),
            (None, _) => None,
        };
        let workspace = match (&request.workspace, &configured) {
            (Some(requested), _) => absolute_workspace(requested)?,
            (None, Some(configured)) => configured.clone(),
            (None, None) => instances::default_workspace(home)?,
        };
        check_workspace(home, &workspace)?;
        // If the password was never shown, the setup belongs to an interrupted restore, not to a user.
        let was_shown = match receipt {
            Some(receipt) => receipt.password_shown,
            None => journal::unfinished(home)?.is_none(),
        };
        let was_used = was_shown || home.logs().join("server.log").exists();
        Ok(Self {
            is_set_up: lost_config.is_some() || (config.is_some() && was_used),
            has_datastore: cluster == ClusterState::Ready,
            unreadable: unreadable(home, &cluster).filter(|_| is_forced),
            port: match &config {
                Some(config) => Some(config.port),
                // The backup is most likely of this instance, so its port is right.
                None if lost_config.is_some() => None,
                None => Some(setup::own_port(home)),
            },
            upgrade_from,
            archive_settings: request.archive_settings,
            force: request.force,
            lost_config,
            workspace_existed: workspace.exists(),
            workspace_in_use: workspace.exists() && !setup::is_untouched(&workspace),
            workspace_is_ours: configured.as_ref() == Some(&workspace),
            config,
            workspace,
        })
    }

    /// Checks that the backup may be restored here.
    pub fn check(&self, home: &Home, manifest: &Manifest) -> Result<(), OperationError> {
        let root = home.root();
        let free = |path: &Path| disk::free_bytes(path).map_err(OperationError::io("read", path));
        let is_same_file_system = disk::same_file_system(root, &self.workspace).unwrap_or(false);
        let facts = RestoreFacts {
            manifest,
            binary_schema: embedded::newest(known()),
            is_set_up: self.is_set_up,
            workspace: &self.workspace,
            workspace_in_use: self.workspace_in_use,
            workspace_is_ours: self.workspace_is_ours,
            force: self.force == Force::Yes,
            home_inside: self.contains_home(root),
            obstacle: self.obstacle(home)?,
            // With an external database, this disk holds three copies: the test restore and the content of both states.
            database_copies: if location::kind(home) == Kind::External { 3 } else { 1 },
            free: free(root)?,
            workspace_free: if is_same_file_system { None } else { Some(free(&self.workspace)?) },
            // A rollback has checked the space with its own reserve.
            reserve: if env_vars::is_set(RESTORE_OF_ROLLBACK) { capacity::RESERVE } else { restore_plan::RESERVE },
        };
        Ok(restore_plan::check(&facts, root).map_err(RestoreError::from)?)
    }

    /// Returns an obstacle to the restore's renames. The workspace itself may be a mount point, because only its
    /// entries are renamed.
    fn obstacle(&self, home: &Home) -> Result<Option<Obstacle>, OperationError> {
        let obstacle = obstacles::find_in_exchange(home, Some(&self.workspace)).and_then(|obstacle| {
            match (obstacle, &self.unreadable) {
                // The unreadable cluster is moved away by a rename, too.
                (None, Some(_)) => obstacles::find_in_cluster(home),
                (obstacle, _) => Ok(obstacle),
            }
        });
        obstacle.map_err(OperationError::io("read", home.root()))
    }

    fn contains_home(&self, home: &Path) -> bool {
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        canonical(home).starts_with(canonical(&self.workspace))
    }

    fn protected(&self) -> Protected<'_> {
        match (&self.config, self.archive_settings) {
            (Some(config), _) => Protected::Kept { backup: &config.backup, upgrade_from: self.upgrade_from.as_deref() },
            (None, ArchiveSettings::TakenOver) => Protected::TakenOver,
            (None, ArchiveSettings::LeftOut) => Protected::Unset,
        }
    }

    /// Names of the settings in the backup's configuration that are neither taken over nor set on this machine.
    pub fn left_out(&self, backup_config: &str) -> Vec<&'static str> {
        match self.protected() {
            Protected::Unset => restore_plan::protected_settings(backup_config),
            Protected::Kept { .. } | Protected::TakenOver => Vec::new(),
        }
    }

    /// The settings of this machine, which a restore keeps.
    pub fn machine(&self) -> Machine<'_> {
        Machine {
            workspace: &self.workspace,
            port: self.port,
            python: self.config.as_ref().and_then(|config| config.python.as_deref()),
            host: self.config.as_ref().map(|config| config.host).filter(|host| !host.is_loopback()),
            datastore: self.config.as_ref().map_or(&DatastoreSetting::Managed, |config| &config.datastore),
            protected: self.protected(),
            new_jwt_secret: random::hex_256(),
        }
    }

    /// This machine's receipt, with the workspace after the restore.
    pub fn receipt(&self, context: &OperationContext<'_>) -> Result<Vec<u8>, OperationError> {
        let previous = Receipt::load(context.home)?.ok_or(OperationError::NoReceipt)?;
        let made_workspace =
            if previous.workspace == self.workspace { previous.made_workspace } else { !self.workspace_existed };
        let receipt = Receipt { workspace: self.workspace.clone(), made_workspace, password_shown: true, ..previous };
        serde_json::to_vec_pretty(&receipt)
            .map_err(|error| OperationError::io("write", &context.home.receipt())(error.into()))
    }
}

/// Returns why config.yaml is unusable; `None` if the user can correct it: it has an encryption_key or is unreadable.
fn lost_config(home: &Home) -> Option<LostConfig> {
    let has_key = |text: &[u8]| String::from_utf8_lossy(text).lines().any(|line| line.starts_with("encryption_key:"));
    match files::read_regular(&home.config(), 1024 * 1024) {
        Ok(None) => Some(LostConfig::Missing),
        Ok(Some(text)) if !has_key(&text) => Some(LostConfig::NoKey),
        _ => None,
    }
}

/// Why the existing datastore cannot be opened, judged by its files; `None` if it may be readable.
fn unreadable(home: &Home, cluster: &ClusterState) -> Option<String> {
    match (cluster, Credentials::load(home)) {
        _ if location::kind(home) != Kind::Managed => None,
        (ClusterState::Ready, Ok(None)) => {
            Some("managed-postgres/credentials.json is missing, and with it the datastore's password".to_owned())
        }
        (ClusterState::Ready, Err(error @ CredentialsError::Damaged { .. })) => Some(error.to_string()),
        (ClusterState::NotACluster(reason), _) => Some(reason.clone()),
        _ => None,
    }
}
