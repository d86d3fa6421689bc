//! Restores a backup. The plan holds the locks, so that what it shows stays true until it is applied or dropped.

mod current;
mod target;
mod undo;

pub use undo::{UndoPlan, apply as apply_undo, plan as plan_undo};

use super::instance::{self, StoppedInstance};
use super::open::{AfterUpgrade, Datastore, report_conflicts};
use super::summary::{FormatTime, Summary};
use super::{DryRun, LostConfig, OperationContext, OperationError, set_up};
use crate::backup::restore::restore_dir::{self, RetainedState};
use crate::backup::restore::restore_plan::{RestoreRefusal, adapted_config};
use crate::backup::restore::{self, Records, Staged, obstacles, quarantine};
use crate::backup::{Input, Manifest, RestoreError, newer_files, verify};
use crate::setup::Request;
use current::{CurrentState, MovedConfig};
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{HomeLock, OperationLock};
use leoflow_base::protocol::control;
use leoflow_base::sys::checkpoint;
use leoflow_engine::store::dag::dag_facts;
use leoflow_processes::supervisor;
use std::path::PathBuf;
use target::Target;

/// Names the holder of the locks in other processes' messages.
const COMMAND: &str = "leoflow lite restore";

/// A restore that a user wants.
pub struct RestoreRequest<'a> {
    pub input: Input,
    /// The folder for the workspace; `None` is this machine's.
    pub workspace: Option<PathBuf>,
    pub force: Force,
    pub archive_settings: ArchiveSettings,
    pub format_time: FormatTime<'a>,
}

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

/// Whether a restore into a new home takes over the backup's settings that decide who can read later backups, and where
/// releases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveSettings {
    LeftOut,
    TakenOver,
}

/// What a restore replaces, for the user.
pub struct Overview {
    pub workspace: PathBuf,
    /// The current configuration; `None` in a home without one.
    pub config: Option<Config>,
    /// True when the home holds an instance in use.
    pub is_set_up: bool,
    pub backup: Summary,
    /// The current state; `None` in an empty home.
    pub current: Option<Summary>,
    /// Why the current datastore cannot be read.
    pub unreadable: Option<String>,
    pub lost_config: Option<LostConfig>,
    /// The restore that can no longer be undone afterwards.
    pub earlier_restore: Option<RetainedState>,
    /// Files of the workspace that are replaced although the backup does not contain their current content.
    pub newer_files: Vec<String>,
    /// Names of the backup's settings that are not taken over.
    pub left_out: Vec<&'static str>,
}

impl Overview {
    fn new(
        home: &Home,
        input: &Input,
        target: &Target,
        (backup, backup_config): (&Manifest, &str),
        current: Option<Summary>,
    ) -> Self {
        // A folder that cannot be read is an error once the restore writes into it.
        let earlier_restore = restore_dir::retained(home).ok().flatten().map(|(_, retained)| retained);
        Self {
            workspace: target.workspace.clone(),
            config: target.config.clone(),
            is_set_up: target.is_set_up,
            backup: Summary::of(backup),
            current,
            unreadable: target.unreadable.clone(),
            lost_config: target.lost_config,
            earlier_restore: earlier_restore.filter(|retained| retained.unreadable.is_none()),
            newer_files: newer_files(home, backup, &input.path, &target.workspace),
            left_out: target.left_out(backup_config),
        }
    }
}

/// Fails if the home holds an instance and the request does not replace it.
pub fn refuse_unforced(home: &Home, request: &RestoreRequest<'_>) -> Result<(), OperationError> {
    match Target::find(home, request)?.is_set_up && request.force == Force::No {
        true => Err(RestoreError::from(RestoreRefusal::AlreadySetUp).into()),
        false => Ok(()),
    }
}

/// Checks everything that needs no write.
pub fn check(home: &Home, request: &RestoreRequest<'_>) -> Result<(), OperationError> {
    let manifest = restore::peek(&request.input)?;
    Target::find(home, request)?.check(home, &manifest)
}

/// Checks the whole backup and returns what a restore would replace. Changes nothing.
pub async fn preview(context: &OperationContext<'_>, request: &RestoreRequest<'_>) -> Result<Overview, OperationError> {
    let (home, input) = (context.home, &request.input);
    let target = Target::find(home, request)?;
    context.refuse_interrupted()?;
    let manifest = verify::verify_hashes(input, context.reporter)?;
    let current = match target.unreadable.is_some() || target.lost_config.is_some() {
        true => Some(Summary::default()),
        false if target.is_set_up && target.has_datastore => {
            Some(Summary::of_current(context, &Datastore::open(context, COMMAND).await?).await?)
        }
        false => None,
    };
    Ok(Overview::new(home, input, &target, (&manifest, &restore::peek_config(input)?.1), current))
}

/// A restore that may be applied. Fields are dropped in order: the locks before a home that it created.
pub struct RestorePlan<'a> {
    pub overview: Overview,
    context: OperationContext<'a>,
    request: &'a RestoreRequest<'a>,
    target: Target,
    current: CurrentState,
    /// `None` if a running instance or the opened datastore holds it.
    home_lock: Option<HomeLock>,
    operation_lock: OperationLock,
    created_home: CreatedHome<'a>,
}

/// A home that the restore may have created.
struct CreatedHome<'a> {
    home: &'a Home,
    /// True until the restore is finished, if it created the home.
    remove_on_drop: bool,
}

impl Drop for CreatedHome<'_> {
    fn drop(&mut self) {
        if self.remove_on_drop {
            self.home.remove_if_unused(COMMAND);
        }
    }
}

/// Takes the locks, checks everything again, and reads the current state.
pub async fn plan<'a>(
    context: &OperationContext<'a>,
    request: &'a RestoreRequest<'a>,
) -> Result<RestorePlan<'a>, OperationError> {
    let home = context.home;
    instance::refuse_in_terminal(home)?;
    context.settle_change(DryRun::No).await?;
    let created_home = CreatedHome { home, remove_on_drop: !home.exists() };
    context.create_home()?;
    // The lock keeps others from setting up or starting this home; a running instance holds it itself.
    let mut home_lock = match control::status_of(home) {
        Some(_) => None,
        None => Some(context.take_home(COMMAND, None, AfterUpgrade::GoOn).await?),
    };
    let operation_lock = OperationLock::take(home, COMMAND)?;
    let (mut target, (backup, backup_config)) = (Target::find(home, request)?, restore::peek_config(&request.input)?);
    target.check(home, &backup)?;
    let mut current = CurrentState::default();
    if target.is_set_up && target.unreadable.is_none() && target.lost_config.is_none() && target.has_datastore {
        current.read(context, home_lock.take(), request.force).await?;
        target.unreadable = current.unreadable.take();
    }
    let summary = target.is_set_up.then(|| current.before.clone());
    let overview = Overview::new(home, &request.input, &target, (&backup, &backup_config), summary);
    Ok(RestorePlan { overview, context: *context, request, target, current, home_lock, operation_lock, created_home })
}

/// A finished restore.
pub struct Restored {
    pub manifest: Manifest,
    /// True when the replaced state was in use, is readable, and is kept for an undo.
    pub can_undo: bool,
    /// Names of the backup's settings that were not taken over.
    pub left_out: Vec<&'static str>,
    /// In a new home, the DAGs of the backup that start runs by their schedules.
    pub scheduled_dags: Vec<String>,
}

/// The end of an operation for which a running instance was stopped. After a failure, the previous state is in place
/// again. The caller starts the instance in both cases.
pub struct Applied<T> {
    pub outcome: Result<T, OperationError>,
    pub stopped: Option<StoppedInstance>,
}

/// Replaces the current state by the backup.
pub async fn apply(plan: RestorePlan<'_>) -> Applied<Restored> {
    let RestorePlan { context, request, target, current, home_lock, operation_lock, mut created_home, .. } = plan;
    let mut stopped = None;
    let mut restore = Restore { context: &context, request, target: &target, home_lock, stopped: &mut stopped };
    let outcome = restore.replace(current).await;
    drop(restore);
    if outcome.is_err() && quarantine::pending(context.home).is_ok_and(|moved_away| moved_away.is_some()) {
        // Every process that used the new cluster has ended, so `take_home` can move the old cluster back.
        if let Err(error) = context.take_home(COMMAND, None, AfterUpgrade::GoOn).await {
            let error = error.to_string().replace('\n', " ");
            context.warn(format!("failed to move the old datastore back: {error}"));
        }
    }
    drop(operation_lock);
    created_home.remove_on_drop &= outcome.is_err();
    Applied { outcome, stopped }
}

/// A restore under way. The caller holds the operation lock.
struct Restore<'a> {
    context: &'a OperationContext<'a>,
    request: &'a RestoreRequest<'a>,
    target: &'a Target,
    home_lock: Option<HomeLock>,
    /// The instance that was stopped.
    stopped: &'a mut Option<StoppedInstance>,
}

impl Restore<'_> {
    async fn replace(&mut self, mut current: CurrentState) -> Result<Restored, OperationError> {
        let &mut Self { context, request, target, .. } = self;
        let home = context.home;
        // Dropped before the locks: on an error, the drop puts the unusable config.yaml back while they are held.
        let moved_config = target.lost_config.map(|_| MovedConfig::begin(home)).transpose()?;
        let mut unreadable = target.unreadable.clone();
        if target.lost_config.is_some() && unreadable.is_none() {
            // With an empty config.yaml in place, the datastore can be opened.
            current.read(context, self.home_lock.take(), Force::Yes).await?;
            unreadable = current.unreadable.take();
        }
        let staged = Staged::unpack(home, &request.input, &target.workspace, context.reporter)?;
        // Check once more with the verified manifest: `unpack` has compared every entry with it.
        target.check(home, &staged.manifest)?;
        let restored = self.exchange(staged, current, unreadable).await?;
        report_conflicts(home, context.reporter);
        if let Some(path) = moved_config.and_then(MovedConfig::keep) {
            context.note(format!("The unreadable config.yaml is kept: {}", path.display()));
        }
        if !restored.can_undo && target.is_set_up {
            context.note(format!(
                "The unreadable datastore is kept in {}, the previous workspace and task logs in {}.",
                home.postgres().display(),
                home.restore().display()
            ));
        }
        Ok(restored)
    }

    /// Verifies the unpacked backup in the datastore and makes it current. Sets up an empty home first.
    async fn exchange(
        &mut self,
        staged: Staged,
        current: CurrentState,
        unreadable: Option<String>,
    ) -> Result<Restored, OperationError> {
        let &mut Self { context, request, target, .. } = self;
        let &OperationContext { home, version, reporter } = context;
        let (manifest, config) = (staged.manifest.clone(), adapted_config(&staged.config, &target.machine()));
        let config = config.map_err(RestoreError::from)?;
        let left_out = target.left_out(&staged.config);
        if let Some(reason) = &unreadable {
            self.move_cluster_away(reason).await?;
        }
        let datastore = match current.opened {
            Some(datastore) => datastore,
            None => self.prepare_home().await?,
        };
        let loaded = restore::load_and_verify(home, &datastore.access, staged, version, reporter).await;
        let ready = loaded.map_err(|error| datastore.explain(error))?;
        let records = Records {
            config,
            receipt: target.receipt(context)?,
            restored: Summary::of(&manifest).describe(request.format_time),
            replaced: current.before.describe(request.format_time),
        };
        let can_undo = target.is_set_up && unreadable.is_none();
        let datastore = match unreadable {
            Some(_) => datastore,
            None => current::open_exclusively(context, datastore, self.stopped).await?,
        };
        checkpoint("restore.stopped");
        if let Err(error) = ready.make_current(home, &datastore.access, &records).await {
            // Removes the prepared database.
            drop(context.clean_up(Some(&datastore.access)).await);
            return Err(error.into());
        }
        let scheduled_dags = if target.is_set_up { Vec::new() } else { scheduled_dags(&datastore).await };
        Ok(Restored { manifest, can_undo, left_out, scheduled_dags })
    }

    /// Moves an unreadable cluster away, after every process that uses it has stopped. Refuses if an obstacle in it, such
    /// as a mount point, prevents the rename.
    async fn move_cluster_away(&mut self, reason: &str) -> Result<(), OperationError> {
        let home = self.context.home;
        refuse_obstacle(obstacles::find_in_cluster(home).map_err(OperationError::io("read", &home.postgres()))?)?;
        if self.home_lock.is_none() {
            instance::stop(self.context, self.stopped)?;
            self.home_lock = Some(self.context.take_home(COMMAND, None, AfterUpgrade::GoOn).await?);
        }
        supervisor::end_leftovers(home).map_err(OperationError::Instance)?;
        quarantine::begin(home, reason)?;
        Ok(())
    }

    /// Sets up an empty home: programs, a cluster, and a configuration that the backup's will replace.
    async fn prepare_home(&mut self) -> Result<Datastore, OperationError> {
        let &OperationContext { home, version, reporter } = self.context;
        let has_workspace = self.target.config.as_ref().is_some_and(|config| config.workspace.is_some());
        let workspace = (!has_workspace).then(|| self.target.workspace.clone());
        let request = Request { workspace, ..Request::default() };
        set_up::apply(home, version, &request, reporter).await?;
        let datastore = current::open(self.context, self.home_lock.take()).await?;
        drop(datastore.connect().await?);
        Ok(datastore)
    }
}

fn refuse_obstacle(obstacle: Option<obstacles::Obstacle>) -> Result<(), RestoreError> {
    obstacle.map_or(Ok(()), |obstacle| Err(RestoreRefusal::from(obstacle).into()))
}

/// The unpaused DAGs with a schedule. Empty if they cannot be read, because the restore is complete.
async fn scheduled_dags(datastore: &Datastore) -> Vec<String> {
    match datastore.connect().await {
        Ok(client) => dag_facts::unpaused_with_schedule(&client).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}
