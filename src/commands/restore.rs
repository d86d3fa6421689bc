//! `leoflow lite restore`, and its undo.

use super::context::Context;
use super::datastore::Datastore;
use super::lite_control;
use super::lite_run::set_up;
use super::lite_start;
use super::recovery;
use super::replaced::{self, Summary};
use crate::backup::restore::{self, Records, Staged};
use crate::backup::restore_plan::{self, Facts, Machine, fitted_config};
use crate::backup::{Manifest, RestoreError, verify};
use crate::cli::args::{LiteRun, Restore};
use crate::config::{self, Config, DEFAULT_PORT};
use crate::error::Error;
use crate::home::journal;
use crate::home::lock::{self, OperationLock};
use crate::home::resolve_workspace;
use crate::protocol::control;
use crate::schema::{embedded, known};
use crate::setup::{self, Receipt, Wishes};
use crate::sys::{checkpoint, disk, env_vars, files, mounts};
use serde_json::json;
use std::path::{Path, PathBuf};

pub async fn run(context: &Context<'_>, args: &Restore) -> Result<u8, Error> {
    match &args.input {
        None => super::restore_undo::run(context, args).await,
        Some(input) => {
            let here = env_vars::current_dir().map_err(Error::failed)?;
            bring_back(context, args, &here.join(input)).await
        }
    }
}

async fn bring_back(context: &Context<'_>, args: &Restore, input: &Path) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let manifest = restore::peek(input)?;
    if !args.dry_run {
        recovery::finish_first(context, "leoflow lite restore").await?;
    }
    let target = Target::find(context, args)?;
    target.check(context, &manifest, args.force)?;
    refuse_beside_a_terminal(context)?;
    if args.dry_run {
        verify::hashes(input, printer)?;
        tell_plan(context, &target, &Summary::of(&manifest), None);
        printer.note("Nothing was changed.");
        return Ok(0);
    }
    let made_home = !home.exists();
    home.create().map_err(|error| Error::io("create", home.root(), &error))?;
    let alone = OperationLock::take(home, "leoflow lite restore")?;
    let outcome = replace(context, args, input, &target, made_home).await;
    let was_running = outcome?;
    drop(alone);
    if let Some(port) = was_running {
        lite_start::start(context, &LiteRun { port, ..LiteRun::default() })?;
    }
    tell_result(context, &manifest, was_running.is_some(), target.is_set_up)
}

/// Everything up to the new state in its place. Returns the port of an instance that was stopped for it
/// and has to be started again.
async fn replace(
    context: &Context<'_>,
    args: &Restore,
    input: &Path,
    target: &Target,
    made_home: bool,
) -> Result<Option<Option<u16>>, Error> {
    let (home, printer) = (&context.home, context.printer);
    let mut datastore = None;
    let mut before = Summary::nothing();
    if target.is_set_up && target.has_datastore {
        let opened = Datastore::open(context, "leoflow lite restore").await?;
        recovery::clean_up(home, Some(&opened.access), printer).await?;
        before = replaced::summary(context, &opened).await?;
        datastore = Some(opened);
    }
    if target.is_set_up {
        tell_plan(context, target, &Summary::of(&restore::peek(input)?), Some(&before));
        if !context.confirm_by_name("Replace it?", &target.instance_name(), args.yes)? {
            return Err(Error::failed("nothing was changed"));
        }
    }
    let staged = Staged::unpack(home, input, &target.workspace, printer).inspect_err(|_| {
        if made_home {
            // Ours since a moment ago, and empty but for locks.
            let _ = files::remove_any(home.root());
        }
    })?;
    // Once more: this is the manifest that everything was compared with.
    if let Err(error) = target.check(context, &staged.manifest, args.force) {
        staged.discard();
        return Err(error);
    }
    let datastore = match datastore {
        Some(datastore) => datastore,
        None => match prepare_home(context, target).await {
            Ok(datastore) => datastore,
            Err(error) => {
                staged.discard();
                return Err(error);
            }
        },
    };
    let machine = Machine {
        workspace: &target.workspace,
        port: target.config.as_ref().map_or(DEFAULT_PORT, |config| config.port),
        python: target.config.as_ref().and_then(|config| config.python.as_deref()),
        current: target.config.as_ref(),
    };
    let config = match fitted_config(&staged.config, &machine) {
        Ok(config) => config,
        Err(error) => {
            staged.discard();
            return Err(RestoreError::from(error).into());
        }
    };
    let ready = match restore::prove(&datastore.access, staged, context.version, printer).await {
        Ok(ready) => ready,
        Err((staged, error)) => {
            staged.discard();
            return Err(error.into());
        }
    };
    let records = Records {
        config,
        receipt: receipt(context, target)?,
        in_force: replaced::in_words(&Summary::of(&restore::peek(input)?)),
        set_aside: replaced::in_words(&before),
    };
    let (datastore, was_running) = alone_with_it(context, datastore).await?;
    checkpoint("restore.stopped");
    let outcome = ready.bring_into_force(home, &datastore.access, &records).await;
    if let Err(error) = outcome {
        // What was prepared is a stray now; the instance goes on as it was.
        drop(recovery::clean_up(home, Some(&datastore.access), printer).await);
        drop(datastore);
        if let Some(port) = was_running {
            drop(lite_start::start(context, &LiteRun { port, ..LiteRun::default() }));
        }
        return Err(error.into());
    }
    Ok(was_running)
}

/// A datastore that nobody else is connected to: a running instance is stopped first. Also its port,
/// when there was one.
pub async fn alone_with_it(
    context: &Context<'_>,
    datastore: Datastore,
) -> Result<(Datastore, Option<Option<u16>>), Error> {
    if !datastore.runs_for_lite {
        return Ok((datastore, None));
    }
    drop(datastore);
    refuse_beside_a_terminal(context)?;
    let port = lite_control::running_port(context);
    lite_control::stop_whole(context)?;
    let datastore = Datastore::open(context, "leoflow lite restore").await?;
    if datastore.runs_for_lite {
        return Err(Error::failed("Leoflow was started again meanwhile; nothing was changed")
            .hint("run the same command again"));
    }
    Ok((datastore, Some(port)))
}

/// An instance in the foreground belongs to a terminal, which nobody but its user may end.
pub fn refuse_beside_a_terminal(context: &Context<'_>) -> Result<(), Error> {
    match control::status_of(&context.home) {
        Some(status) if !status.detached => {
            Err(Error::refused(format!("Leoflow runs in a terminal (pid {})", status.pid))
                .hint("stop it there with Ctrl-C, or with `leoflow lite stop`; then run the same command again"))
        }
        Some(_) => Ok(()),
        None => match lock::holder(&context.home).filter(|_| lock::is_held(&context.home).unwrap_or(false)) {
            Some(holder) => Err(lock::LockError::Held { holder: Some(holder) }.into()),
            None => Ok(()),
        },
    }
}

/// In an empty home: programs, a cluster, a configuration that the backup's will replace.
async fn prepare_home(context: &Context<'_>, target: &Target) -> Result<Datastore, Error> {
    {
        let _lock = recovery::take_home(context, "leoflow lite restore", None, context.printer).await?;
        let wishes = Wishes { port: None, workspace: target.wished_workspace(), install_always: false };
        set_up(context, &wishes, context.printer).await?;
    }
    let datastore = Datastore::open(context, "leoflow lite restore").await?;
    drop(datastore.connect().await?);
    Ok(datastore)
}

/// Where to, and what is there.
pub struct Target {
    pub config: Option<Config>,
    pub workspace: PathBuf,
    is_set_up: bool,
    has_datastore: bool,
    workspace_in_use: bool,
    workspace_is_ours: bool,
}

impl Target {
    fn find(context: &Context<'_>, args: &Restore) -> Result<Self, Error> {
        let home = &context.home;
        let config = context.config()?.map(|loaded| loaded.config);
        let configured = config.as_ref().and_then(|config| config.workspace.clone());
        let workspace = match (&args.workspace, &configured) {
            (Some(asked), _) => resolve_workspace(Some(asked))?,
            (None, Some(configured)) => configured.clone(),
            (None, None) => resolve_workspace(None)?,
        };
        // A setup whose password nobody has seen was ours, for a restore that was interrupted.
        let was_shown = match Receipt::load(home)? {
            Some(receipt) => receipt.password_shown,
            None => journal::unfinished(home)?.is_none(),
        };
        let was_used = was_shown || home.logs().join("server.log").exists();
        let wishes = Wishes { port: None, workspace: None, install_always: false };
        let facts = setup::gather(home, context.version, &workspace, wishes.install_always)?;
        let is_ours = configured.as_ref() == Some(&workspace);
        Ok(Self {
            is_set_up: config.is_some() && was_used,
            has_datastore: facts.cluster == crate::postgres::cluster::ClusterState::Ready,
            workspace_in_use: workspace.exists() && !setup::is_untouched(&workspace),
            workspace_is_ours: is_ours,
            config,
            workspace,
        })
    }

    fn check(&self, context: &Context<'_>, manifest: &Manifest, force: bool) -> Result<(), Error> {
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
            mount: self.mount_inside(),
            free: free(root)?,
            workspace_free: if same { None } else { Some(free(&self.workspace)?) },
        };
        restore_plan::check(&facts, root).map_err(|refusal| RestoreError::from(refusal).into())
    }

    /// The workspace may be a mount point itself: its entries move, it stays.
    fn mount_inside(&self) -> Option<PathBuf> {
        let real = self.workspace.canonicalize().ok()?;
        mounts::at_or_below(&real).ok()?.into_iter().find(|mount| *mount != real)
    }

    /// For a setup that makes the workspace; one that the config names is not asked for again.
    fn wished_workspace(&self) -> Option<PathBuf> {
        self.config.as_ref().and_then(|config| config.workspace.as_ref()).is_none().then(|| self.workspace.clone())
    }

    fn instance_name(&self) -> String {
        let name = self.config.as_ref().and_then(|config| config.instance_name.clone());
        name.unwrap_or_else(|| "leoflow".to_owned())
    }
}

/// This machine's own, with the workspace that comes into force.
fn receipt(context: &Context<'_>, target: &Target) -> Result<Vec<u8>, Error> {
    let old = Receipt::load(&context.home)?
        .ok_or_else(|| Error::failed("setup.json is gone").hint("leoflow setup writes a new one"))?;
    let made_workspace =
        if old.workspace == target.workspace { old.made_workspace } else { !target.workspace.exists() };
    let receipt = Receipt { workspace: target.workspace.clone(), made_workspace, password_shown: true, ..old };
    serde_json::to_vec_pretty(&receipt).map_err(Error::bug)
}

fn tell_plan(context: &Context<'_>, target: &Target, backup: &Summary, before: Option<&Summary>) {
    let note = |text: String| context.printer.note(text);
    note(format!("The backup:  {}", replaced::in_words(backup)));
    if let Some(before) = before {
        note(format!("Here now:    {}", replaced::in_words(before)));
        note(format!(
            "The backup replaces what is here: the database, config.yaml, the task logs, and {}.",
            target.workspace.display()
        ));
        note("What is replaced is kept, for `leoflow lite restore --undo`.".to_owned());
    } else if target.is_set_up {
        note(format!(
            "It would replace the instance in {} and {}.",
            context.home.root().display(),
            target.workspace.display()
        ));
    } else {
        note(format!("It would go into {} and {}.", context.home.root().display(), target.workspace.display()));
    }
}

fn tell_result(context: &Context<'_>, manifest: &Manifest, runs: bool, replaced: bool) -> Result<u8, Error> {
    let printer = context.printer;
    let email = config::load(&context.home.config())?.map(|loaded| loaded.config.admin_email).unwrap_or_default();
    if printer.json {
        printer.json(&json!({
            "restored": true,
            "instance": manifest.instance,
            "created_at": manifest.created_at,
            "schema_version": embedded::newest(known()),
            "tables": manifest.tables,
            "running": runs,
            "can_undo": replaced,
        }))?;
        return Ok(0);
    }
    printer.line(format!("Restored {} of {}: {} rows", manifest.instance, manifest.created_at, manifest.rows()));
    for skipped in &manifest.skipped {
        printer.warning(format!("the backup does not have {}: {}", skipped.path, skipped.reason));
    }
    printer.line(format!("  log in as {email}, with the password of that time"));
    printer.line(if runs { "  Leoflow is running again" } else { "  Start it:  leoflow lite start" });
    if replaced {
        printer.line("  what it replaced is kept:  leoflow lite restore --undo");
    }
    Ok(0)
}
