//! The target of a restore and its current state.

use super::restore_args::{ArchiveSettings, Restore};
use crate::context::Context;
use crate::error::Error;
use leoflow_base::config::{self, Config, DatastoreSetting};
use leoflow_base::home::{Home, absolute_workspace, check_workspace, instances, journal};
use leoflow_base::protocol::child::RESTORE_OF_ROLLBACK;
use leoflow_base::sys::fs::{disk, files};
use leoflow_base::sys::{env_vars, random};
use leoflow_lifecycle::backup::restore::obstacles::{self, Obstacle};
use leoflow_lifecycle::backup::restore::restore_plan::{self, Machine, Protected, RestoreFacts};
use leoflow_lifecycle::backup::{Manifest, RestoreError};
use leoflow_lifecycle::setup::{self, Receipt};
use leoflow_lifecycle::upgrade::rollback::capacity;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::credentials::{Credentials, CredentialsError};
use leoflow_postgres::location::{self, Kind, Location};
use leoflow_postgres::schema::{embedded, known};
use std::path::{Path, PathBuf};

/// Whether a restore may replace data in use, and damaged data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

impl From<bool> for Force {
    fn from(is_forced: bool) -> Self {
        if is_forced { Self::Yes } else { Self::No }
    }
}

/// The home and the workspace that a restore writes to, as they are before the restore.
pub struct Target {
    pub config: Option<Config>,
    /// Why config.yaml is unusable although a datastore exists. A restore with `--force` replaces it.
    pub lost_config: Option<Error>,
    /// Why the existing datastore cannot be opened, judged by its files. A restore with `--force` moves it away.
    pub unreadable: Option<Error>,
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
}

impl Target {
    /// Finds the target from the arguments, the configuration and the setup receipt.
    pub fn find(context: &Context<'_>, args: &Restore) -> Result<Self, Error> {
        let home = &context.home;
        let cluster = cluster::state(home);
        let cluster_exists = !matches!(cluster, ClusterState::Absent | ClusterState::OtherMajor(_));
        let lost_config = lost_config(home).filter(|_| args.force && cluster_exists);
        // A damaged location record is an error here, before anything is changed.
        if let (Some(recorded_location), Some(error)) = (location::recorded(home)?, &lost_config) {
            return Err(data_is_elsewhere(&recorded_location, error));
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
        let workspace = workspace(home, args, configured.as_ref())?;
        // If the password was never shown, the setup belongs to an interrupted restore, not to a user.
        let was_shown = match receipt {
            Some(receipt) => receipt.password_shown,
            None => journal::unfinished(home)?.is_none(),
        };
        let was_used = was_shown || home.logs().join("server.log").exists();
        Ok(Self {
            is_set_up: lost_config.is_some() || (config.is_some() && was_used),
            has_datastore: cluster == ClusterState::Ready,
            unreadable: unreadable(home, &cluster).filter(|_| args.force),
            port: match &config {
                Some(config) => Some(config.port),
                // The backup is most likely of this instance, so its port is right.
                None if lost_config.is_some() => None,
                None => Some(setup::own_port(home)),
            },
            upgrade_from,
            archive_settings: args.archive_settings(),
            lost_config,
            workspace_existed: workspace.exists(),
            workspace_in_use: workspace.exists() && !setup::is_untouched(&workspace),
            workspace_is_ours: configured.as_ref() == Some(&workspace),
            config,
            workspace,
        })
    }

    /// Checks that the backup may be restored here.
    pub fn check(&self, context: &Context<'_>, manifest: &Manifest, force: Force) -> Result<(), Error> {
        let root = context.home.root();
        let free = |path: &Path| disk::free_bytes(path).map_err(|error| Error::io("read", path, &error));
        let is_same_file_system = disk::same_file_system(root, &self.workspace).unwrap_or(false);
        let facts = RestoreFacts {
            manifest,
            binary_schema: embedded::newest(known()),
            is_set_up: self.is_set_up,
            workspace: &self.workspace,
            workspace_in_use: self.workspace_in_use,
            workspace_is_ours: self.workspace_is_ours,
            force: force == Force::Yes,
            home_inside: self.contains_home(root),
            obstacle: self.obstacle(&context.home)?,
            // With an external database, this disk holds three copies: the test restore and the content of both states.
            database_copies: if location::kind(&context.home) == Kind::External { 3 } else { 1 },
            free: free(root)?,
            workspace_free: if is_same_file_system { None } else { Some(free(&self.workspace)?) },
            // A rollback has checked the space with its own reserve.
            reserve: if env_vars::is_set(RESTORE_OF_ROLLBACK) { capacity::RESERVE } else { restore_plan::RESERVE },
        };
        restore_plan::check(&facts, root).map_err(|refusal| RestoreError::from(refusal).into())
    }

    /// Returns an obstacle to the restore's renames. The workspace itself may be a mount point, because only its
    /// entries are renamed.
    fn obstacle(&self, home: &Home) -> Result<Option<Obstacle>, Error> {
        let obstacle = obstacles::find_in_exchange(home, Some(&self.workspace)).and_then(|obstacle| {
            match (obstacle, &self.unreadable) {
                // The unreadable cluster is moved away by a rename, too.
                (None, Some(_)) => obstacles::find_in_cluster(home),
                (obstacle, _) => Ok(obstacle),
            }
        });
        obstacle.map_err(|error| Error::io("read", home.root(), &error))
    }

    fn contains_home(&self, home: &Path) -> bool {
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        canonical(home).starts_with(canonical(&self.workspace))
    }

    /// The workspace that setup must create; `None` when the config has one.
    pub fn workspace_to_create(&self) -> Option<PathBuf> {
        self.config.as_ref().and_then(|config| config.workspace.as_ref()).is_none().then(|| self.workspace.clone())
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
    pub fn receipt(&self, context: &Context<'_>) -> Result<Vec<u8>, Error> {
        let previous = Receipt::load(&context.home)?
            .ok_or_else(|| Error::failed("setup.json is missing").hint("create a new one with leoflow setup"))?;
        let made_workspace =
            if previous.workspace == self.workspace { previous.made_workspace } else { !self.workspace_existed };
        let receipt = Receipt { workspace: self.workspace.clone(), made_workspace, password_shown: true, ..previous };
        serde_json::to_vec_pretty(&receipt).map_err(Error::bug)
    }
}

/// The refusal to replace a lost config.yaml if the data is outside the home: only that file says how to reach it.
fn data_is_elsewhere(recorded_location: &Location, lost_config: &Error) -> Error {
    Error::refused(format!("{}; the data is in {}", lost_config.message, recorded_location.display_text))
        .hint("restore config.yaml from a copy of the home")
        .hint("or restore into another home: leoflow --home DIR lite restore --input FILE")
}

/// The workspace to restore into: the requested one, the configured one, or the default.
fn workspace(home: &Home, args: &Restore, configured: Option<&PathBuf>) -> Result<PathBuf, Error> {
    let workspace = match (&args.workspace, configured) {
        (Some(requested), _) => absolute_workspace(requested)?,
        (None, Some(configured)) => configured.clone(),
        (None, None) => instances::default_workspace(home)?,
    };
    check_workspace(home, &workspace)?;
    Ok(workspace)
}

/// Returns why config.yaml is unusable; `None` if the user can correct it: it has an encryption_key or is unreadable.
fn lost_config(home: &Home) -> Option<Error> {
    let path = home.config();
    let has_key =
        |text: Vec<u8>| String::from_utf8_lossy(&text).lines().any(|line| line.starts_with("encryption_key:"));
    match files::read_regular(&path, 1024 * 1024) {
        Ok(None) => Some(Error::failed("config.yaml is missing, and with it the key of encrypted data")),
        Ok(Some(text)) if has_key(text.clone()) => None,
        Ok(Some(_)) => Some(Error::failed("config.yaml has no encryption_key, the key of encrypted data")),
        Err(_) => None,
    }
}

/// Why the existing datastore cannot be opened, judged by its files; `None` if it may be readable.
fn unreadable(home: &Home, cluster: &ClusterState) -> Option<Error> {
    match (cluster, Credentials::load(home)) {
        _ if location::kind(home) != Kind::Managed => None,
        (ClusterState::Ready, Ok(None)) => {
            Some(Error::failed("managed-postgres/credentials.json is missing, and with it the datastore's password"))
        }
        (ClusterState::Ready, Err(error @ CredentialsError::Damaged { .. })) => Some(error.into()),
        (ClusterState::NotACluster(reason), _) => Some(Error::failed(reason)),
        _ => None,
    }
}
