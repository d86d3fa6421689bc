//! Where a restore would go, and what is there.

use crate::backup::obstacles::{self, Obstacle};
use crate::backup::restore_plan::{self, Facts, Machine};
use crate::backup::{Manifest, RestoreError};
use crate::cli::args::Restore;
use crate::commands::context::Context;
use crate::config::{self, Config, DatastoreSetting};
use crate::error::Error;
use crate::home::{Home, absolute_workspace, check_workspace, instances, journal};
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::credentials::{Credentials, CredentialsError};
use crate::postgres::place::{self, Kind};
use crate::protocol::child::RESTORE_OF_ROLLBACK;
use crate::schema::{embedded, known};
use crate::setup::{self, Receipt};
use crate::sys::{disk, env_vars, files};
use crate::upgrade::capacity;
use std::path::{Path, PathBuf};

pub struct Target {
    pub config: Option<Config>,
    /// Why there is no configuration to go by, where there is a datastore. A restore by force replaces it.
    pub lost_config: Option<Error>,
    /// Why the datastore that is there cannot be opened, as a look at the files tells. A restore by force sets it
    /// aside.
    pub unreadable: Option<Error>,
    pub workspace: PathBuf,
    /// Whether somebody uses what is there.
    pub is_set_up: bool,
    pub has_datastore: bool,
    workspace_existed: bool,
    workspace_in_use: bool,
    workspace_is_ours: bool,
    /// The one that comes into force; `None` for that of the backup.
    port: Option<u16>,
}

impl Target {
    pub fn find(context: &Context<'_>, args: &Restore) -> Result<Self, Error> {
        let home = &context.home;
        let cluster = cluster::state(home);
        let is_there = !matches!(cluster, ClusterState::Absent | ClusterState::OtherMajor(_));
        let lost_config = lost_config(home).filter(|_| args.force && is_there);
        if let (Some(error), Some(place)) = (&lost_config, place::recorded(home)?) {
            return Err(Error::refused(format!("{}; the data is in {}", error.message, place.shown))
                .hint("put config.yaml back from a copy of the home")
                .hint("or restore into another home: leoflow --home DIR lite restore --input FILE"));
        }
        let config = match lost_config {
            Some(_) => None,
            // What goes over the file stays beside it.
            None => config::read_file(&home.config())?.map(|loaded| loaded.config),
        };
        let receipt = Receipt::load(home)?;
        let configured = match (&config, &receipt) {
            (Some(config), _) => config.workspace.clone(),
            (None, Some(receipt)) if lost_config.is_some() => Some(receipt.workspace.clone()),
            (None, _) => None,
        };
        let workspace = match (&args.workspace, &configured) {
            (Some(asked), _) => absolute_workspace(asked)?,
            (None, Some(configured)) => configured.clone(),
            (None, None) => instances::default_workspace(&context.home)?,
        };
        check_workspace(home, &workspace)?;
        // A setup whose password nobody has seen was ours, for a restore that was interrupted.
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
                // Most likely the backup is of this very instance.
                None if lost_config.is_some() => None,
                None => Some(setup::own_port(home)),
            },
            lost_config,
            workspace_existed: workspace.exists(),
            workspace_in_use: workspace.exists() && !setup::is_untouched(&workspace),
            workspace_is_ours: configured.as_ref() == Some(&workspace),
            config,
            workspace,
        })
    }

    /// Whether the backup may go there.
    pub fn check(&self, context: &Context<'_>, manifest: &Manifest, force: bool) -> Result<(), Error> {
        let root = context.home.root();
        let free = |path: &Path| disk::free_bytes(path).map_err(|error| Error::io("look at", path, &error));
        let same = disk::same_file_system(root, &self.workspace).unwrap_or(false);
        let facts = Facts {
            manifest,
            binary_schema: embedded::newest(known()),
            is_set_up: self.is_set_up,
            workspace: &self.workspace,
            workspace_in_use: self.workspace_in_use,
            workspace_is_ours: self.workspace_is_ours,
            force,
            home_inside: self.holds(root),
            obstacle: self.obstacle(&context.home)?,
            // Proven here, and both states written down, where the database in force is elsewhere.
            database_copies: if place::kind(&context.home) == Kind::External { 3 } else { 1 },
            free: free(root)?,
            workspace_free: if same { None } else { Some(free(&self.workspace)?) },
            // A rollback has planned its own.
            reserve: if env_vars::is_set(RESTORE_OF_ROLLBACK) { capacity::RESERVE } else { restore_plan::RESERVE },
        };
        restore_plan::check(&facts, root).map_err(|refusal| RestoreError::from(refusal).into())
    }

    /// The workspace may be a mount point itself: its entries move, it stays.
    fn obstacle(&self, home: &Home) -> Result<Option<Obstacle>, Error> {
        let found =
            obstacles::of_exchange(home, Some(&self.workspace)).and_then(|found| match (found, &self.unreadable) {
                // It is set aside.
                (None, Some(_)) => obstacles::of_cluster(home),
                (found, _) => Ok(found),
            });
        found.map_err(|error| Error::io("look at", home.root(), &error))
    }

    fn holds(&self, home: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        real(home).starts_with(real(&self.workspace))
    }

    /// For a setup that makes the workspace; one that the config names is not asked for again.
    pub fn wished_workspace(&self) -> Option<PathBuf> {
        self.config.as_ref().and_then(|config| config.workspace.as_ref()).is_none().then(|| self.workspace.clone())
    }

    /// What belongs to this machine, whatever instance is in force on it.
    pub fn machine(&self) -> Machine<'_> {
        Machine {
            workspace: &self.workspace,
            port: self.port,
            python: self.config.as_ref().and_then(|config| config.python.as_deref()),
            host: self.config.as_ref().map(|config| config.host).filter(|host| !host.is_loopback()),
            datastore: self.config.as_ref().map_or(&DatastoreSetting::Managed, |config| &config.datastore),
            backup: self.config.as_ref().map(|config| &config.backup),
        }
    }

    /// This machine's own receipt, with the workspace that comes into force.
    pub fn receipt(&self, context: &Context<'_>) -> Result<Vec<u8>, Error> {
        let old = Receipt::load(&context.home)?
            .ok_or_else(|| Error::failed("setup.json is gone").hint("leoflow setup writes a new one"))?;
        let made_workspace = if old.workspace == self.workspace { old.made_workspace } else { !self.workspace_existed };
        let receipt = Receipt { workspace: self.workspace.clone(), made_workspace, password_shown: true, ..old };
        serde_json::to_vec_pretty(&receipt).map_err(Error::bug)
    }
}

/// Why the file says nothing. One whose key can still be read is corrected, not replaced.
fn lost_config(home: &Home) -> Option<Error> {
    let path = home.config();
    let has_key =
        |text: Vec<u8>| String::from_utf8_lossy(&text).lines().any(|line| line.starts_with("encryption_key:"));
    match files::read_regular(&path, 1024 * 1024) {
        Ok(None) => Some(Error::failed("config.yaml is gone, and with it the key to what is encrypted")),
        Ok(Some(text)) if has_key(text.clone()) => None,
        Ok(Some(_)) => Some(Error::failed("config.yaml has no encryption_key, which is the key to what is encrypted")),
        Err(_) => None,
    }
}

fn unreadable(home: &Home, cluster: &ClusterState) -> Option<Error> {
    match (cluster, Credentials::load(home)) {
        _ if place::kind(home) != Kind::Managed => None,
        (ClusterState::Ready, Ok(None)) => {
            Some(Error::failed("managed-postgres/credentials.json is gone, and with it the way into the datastore"))
        }
        (ClusterState::Ready, Err(error @ CredentialsError::Damaged { .. })) => Some(error.into()),
        (ClusterState::NotACluster(why), _) => Some(Error::failed(why)),
        _ => None,
    }
}
