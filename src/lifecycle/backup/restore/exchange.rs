//! Exchanges the current state (workspace, task logs, database, configuration) for the one in a restore directory,
//! which then contains the replaced state. Each step is a few renames, journaled before and after, and checks the disk
//! for what it has already done, so that it can be repeated. If a step fails, the exchange is undone; after a kill the
//! next start resumes it.

use super::exchange_error::{ExchangeError, io_error};
use super::exchange_tree::{CONFLICTS, Tree, TreeExchange};
use super::preserved::PreservedPaths;
use super::restore_dir::{self, RestoreDir, RetainedState, When};
use super::{obstacles, quarantine};
use crate::backup::content::{self, Content, ExpectedOwner};
use crate::backup::create::own_backups::OwnBackups;
use crate::backup::verify::scratch::{RestoreId, drop_leftovers};
use leoflow_base::config;
use leoflow_base::home::journal::{Entry, Journal, Operation};
use leoflow_base::home::{Home, RESTORED};
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::may_fail;
use leoflow_postgres::databases::{self, Connections, Sessions};
use leoflow_postgres::external::claim::Claim;
use leoflow_postgres::{APPLICATION_DATABASE, Access, PgError, database_attributes, instance_fact, location};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use tokio_postgres::Client;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangePlan {
    pub id: String,
    /// Canonical path of the current workspace; `None` if the exchange does not change the workspace.
    pub workspace: Option<PathBuf>,
    /// Folder for the workspace's new content (subfolder `in`) and replaced content (`out`).
    #[serde(rename = "workspace_side")]
    pub workspace_staging: PathBuf,
    pub task_logs: PathBuf,
    /// Folder for the new task logs (subfolder `in`) and the replaced ones (`out`).
    #[serde(rename = "task_logs_side")]
    pub task_logs_staging: PathBuf,
    /// Object id of the database before the exchange; 0 on an external server.
    pub database: u32,
    /// Random value that identifies this exchange; an external database records it.
    #[serde(default)]
    pub mark: String,
    #[serde(rename = "kept")]
    pub retained: RetainedState,
    /// True while the exchange is undone after a failed step.
    #[serde(default, rename = "backward")]
    pub undo: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    MoveOut,
    MoveIn,
    CarryOver,
    LogsOut,
    LogsIn,
    LogsCarryOver,
    Database,
    Config,
    RetainReplaced,
    DiscardOlder,
}

/// The steps in order, with their names in the journal.
const STEPS: [(Step, &str); 10] = [
    (Step::MoveOut, "move-out"),
    (Step::MoveIn, "move-in"),
    (Step::CarryOver, "carry-over"),
    (Step::LogsOut, "task-logs-out"),
    (Step::LogsIn, "task-logs-in"),
    (Step::LogsCarryOver, "task-logs"),
    (Step::Database, "database"),
    (Step::Config, "config"),
    (Step::RetainReplaced, "settle"),
    (Step::DiscardOlder, "forget"),
];

impl Step {
    fn is_committed(self) -> bool {
        matches!(self, Self::RetainReplaced | Self::DiscardOlder)
    }
}

/// Exchanges the states. The caller has written the new state to disk and verified it, and ensures that no other
/// process uses the home or is connected to its databases.
///
/// # Errors
/// `Reverted` if a step failed and the old state is current again, `Stuck` if the undo failed too.
pub async fn exchange(
    home: &Home,
    access: &Access,
    operation: Operation,
    plan: ExchangePlan,
) -> Result<(), ExchangeError> {
    let names = STEPS.map(|(_, name)| name.to_owned()).to_vec();
    let mut exchange_state = Exchange::new(home, access, plan)?;
    exchange_state.flush()?;
    let mut journal = Journal::begin_with(home, operation, names, exchange_state.plan()?)?;
    exchange_state.forward(&mut journal, 0).await?;
    Ok(journal.finish()?)
}

#[derive(Debug)]
pub enum Resumed {
    Finished,
    /// The old state is current. `Some` is the error for which this call undid the exchange; `None` if an undo had
    /// already begun.
    Undone(Option<Box<ExchangeError>>),
}

/// Resumes an interrupted exchange or its undo.
pub async fn resume(home: &Home, access: &Access, entry: Entry) -> Result<Resumed, ExchangeError> {
    if entry.steps.iter().map(String::as_str).ne(STEPS.map(|(_, name)| name)) {
        return Err(ExchangeError::OtherSteps);
    }
    let plan: ExchangePlan =
        serde_json::from_value(entry.plan.clone()).map_err(|error| ExchangeError::Plan(error.to_string()))?;
    let (step_index, undo) = (entry.at, plan.undo);
    let mut exchange_state = Exchange::new(home, access, plan)?;
    let mut journal = Journal::resume(home, entry);
    if undo {
        exchange_state.undo(&mut journal, step_index).await?;
        journal.finish()?;
        return Ok(Resumed::Undone(None));
    }
    match exchange_state.forward(&mut journal, step_index).await {
        Ok(()) => journal.finish().map(|()| Resumed::Finished).map_err(ExchangeError::from),
        Err(ExchangeError::Reverted(cause)) => Ok(Resumed::Undone(Some(cause))),
        Err(error) => Err(error),
    }
}

struct Exchange<'a> {
    home: &'a Home,
    access: &'a Access,
    plan: ExchangePlan,
    restore_dir: RestoreDir,
    preserved: PreservedPaths,
    own: OwnBackups,
}

impl<'a> Exchange<'a> {
    fn new(home: &'a Home, access: &'a Access, plan: ExchangePlan) -> Result<Self, ExchangeError> {
        let id =
            RestoreId::parse(&plan.id).ok_or_else(|| ExchangeError::Plan(format!("{:?} is not an id", plan.id)))?;
        let restore_dir = RestoreDir::of(home, id);
        let preserved = PreservedPaths::read(&restore_dir.preserved())
            .map_err(|source| io_error("read", &restore_dir.preserved(), source))?;
        Ok(Self { home, access, restore_dir, plan, preserved, own: OwnBackups::of(home) })
    }

    /// Serializes the plan for the journal. Fails for a path that is not UTF-8, before anything moves.
    fn plan(&self) -> Result<serde_json::Value, ExchangeError> {
        serde_json::to_value(&self.plan).map_err(|error| ExchangeError::Plan(error.to_string()))
    }

    /// Applies the steps from index `from` on; undoes the exchange if one fails before the last two.
    async fn forward(&mut self, journal: &mut Journal, from: usize) -> Result<(), ExchangeError> {
        for (index, (step, name)) in STEPS.into_iter().enumerate().skip(from) {
            if let Err(error) = self.apply_step(step, name).await {
                if step.is_committed() {
                    return Err(error);
                }
                self.plan.undo = true;
                journal.set_plan(self.plan()?)?;
                return Err(match self.undo(journal, index).await {
                    Ok(()) => {
                        journal.remove()?;
                        ExchangeError::Reverted(Box::new(error))
                    }
                    Err(second) => ExchangeError::Stuck(Box::new(error), Box::new(second)),
                });
            }
            journal.advance()?;
        }
        Ok(())
    }

    /// Undoes the steps from index `step_index` down to the first.
    async fn undo(&mut self, journal: &mut Journal, step_index: usize) -> Result<(), ExchangeError> {
        for (index, (step, _)) in STEPS.into_iter().enumerate().take(step_index + 1).rev() {
            journal.set_at(index)?;
            self.undo_step(step).await?;
        }
        Ok(())
    }

    async fn apply_step(&self, step: Step, name: &str) -> Result<(), ExchangeError> {
        match step {
            Step::MoveOut => self.workspace().move_out()?,
            Step::MoveIn => self.workspace().move_in()?,
            Step::CarryOver => self.workspace().carry_over()?,
            Step::LogsOut => self.task_logs().move_out()?,
            Step::LogsIn => self.task_logs().move_in()?,
            Step::LogsCarryOver => self.task_logs().carry_over()?,
            Step::Database => self.exchange_databases(When::After).await?,
            Step::Config => self.write_config_and_receipt(When::After)?,
            Step::RetainReplaced => {
                // A try without a folder may have been run to its end.
                let owner_file = self.home.running_tasks_datastore();
                let written = files::write_atomic(&owner_file, RESTORED, 0o600);
                written.map_err(|source| io_error("write", &owner_file, source))?;
                self.retain_replaced()?;
            }
            Step::DiscardOlder => self.discard_older().await,
        }
        self.flush()?;
        let name = format!("exchange.{name}");
        may_fail(&name).map_err(|source| io_error("finish", Path::new(&name), source))
    }

    async fn undo_step(&self, step: Step) -> Result<(), ExchangeError> {
        match step {
            Step::MoveOut => self.workspace().undo_move_out()?,
            Step::MoveIn => self.workspace().undo_move_in()?,
            Step::CarryOver => self.workspace().carry_back()?,
            Step::LogsOut => self.task_logs().undo_move_out()?,
            Step::LogsIn => self.task_logs().undo_move_in()?,
            Step::LogsCarryOver => self.task_logs().carry_back()?,
            Step::Database => self.exchange_databases(When::Before).await?,
            Step::Config => self.write_config_and_receipt(When::Before)?,
            Step::RetainReplaced | Step::DiscardOlder => {}
        }
        self.flush()
    }

    /// Flushes the file systems that the exchange changes.
    fn flush(&self) -> Result<(), ExchangeError> {
        let folders = [Some(self.home.root()), self.plan.workspace.as_deref(), Some(self.plan.task_logs.as_path())];
        for folder in folders.into_iter().flatten().filter(|folder| folder.exists()) {
            files::sync_file_system(folder).map_err(|source| io_error("flush", folder, source))?;
        }
        Ok(())
    }

    fn workspace(&self) -> TreeExchange<'_> {
        let root = self.plan.workspace.as_deref();
        TreeExchange {
            tree: Tree::Workspace(&self.own),
            root,
            staging_dir: &self.plan.workspace_staging,
            names: self.restore_dir.names(),
            carried: self.restore_dir.carried(),
            conflicts: self.conflicts_in(root.unwrap_or(Path::new(""))),
            preserved: &self.preserved.workspace,
            is_fixed: obstacles::is_fixed,
        }
    }

    fn task_logs(&self) -> TreeExchange<'_> {
        TreeExchange {
            tree: Tree::TaskLogs,
            root: Some(&self.plan.task_logs),
            staging_dir: &self.plan.task_logs_staging,
            names: self.restore_dir.log_names(),
            carried: self.restore_dir.carried_logs(),
            conflicts: self.conflicts_in(&self.plan.task_logs),
            preserved: &self.preserved.task_logs,
            is_fixed: obstacles::is_fixed,
        }
    }

    fn conflicts_in(&self, root: &Path) -> PathBuf {
        root.join(format!("{CONFLICTS}{}", self.restore_dir.id.as_str()))
    }

    fn rename_if_there(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        match files::is_there(from) {
            Ok(false) => Ok(()),
            Ok(true) => files::rename_durably(from, to).map_err(|source| io_error("move", from, source)),
            Err(source) => Err(io_error("move", from, source)),
        }
    }

    /// Makes the database of this state current.
    async fn exchange_databases(&self, state: When) -> Result<(), ExchangeError> {
        if self.access.owns_server() { self.rename_databases(state).await } else { self.exchange_content(state).await }
    }

    /// Swaps the names of the application database and the standby, the database of the state that is not current, in
    /// one transaction. The object id shows which of the two is current.
    async fn rename_databases(&self, state: When) -> Result<(), ExchangeError> {
        let mut client = self.access.superuser("postgres").await?;
        let is_old = database_oid(&client, APPLICATION_DATABASE).await? == Some(self.plan.database);
        let (standby, temporary_name) =
            (self.restore_dir.id.standby_database(), format!("leoflow_between_{}", self.restore_dir.id.as_str()));
        if is_old != (state == When::After) {
            return Ok(allow_connections(&client, [APPLICATION_DATABASE, &standby], Connections::Allowed).await?);
        }
        if state == When::After {
            // Dumps do not include database attributes.
            database_attributes::copy_attributes(&client, APPLICATION_DATABASE, &standby).await?;
        }
        // A database with sessions cannot be renamed, and new sessions may start at any time.
        allow_connections(&client, [APPLICATION_DATABASE, &standby], Connections::Refused).await?;
        let renamed = swap_in_transaction(&mut client, &standby, &temporary_name).await;
        allow_connections(&client, [APPLICATION_DATABASE, &standby], Connections::Allowed).await?;
        renamed
    }

    /// Makes the content of this state current in one transaction, which also records the mark of this exchange. Does
    /// nothing if the recorded mark shows that the state is already current.
    async fn exchange_content(&self, state: When) -> Result<(), ExchangeError> {
        let login = self.access.application();
        let client = self.access.connect(&login).await?;
        let is_exchanged = instance_fact::read(&client, MARK).await?.as_deref() == Some(self.plan.mark.as_bytes());
        drop(client);
        if is_exchanged == (state == When::After) {
            return Ok(());
        }
        let path = self.restore_dir.content(state);
        let content = Content::at(&path).map_err(|source| io_error("read", &path, source))?;
        let content = content.ok_or_else(|| io_error("read", &path, io::ErrorKind::NotFound.into()))?;
        let mark = if state == When::After { self.plan.mark.as_str() } else { "" };
        let location = location::recorded(self.home)?.ok_or(PgError::NotManaged)?;
        let final_statements = [instance_fact::statement(MARK, mark), Claim::of(self.home, &location).statement()];
        Ok(content
            .import_into(self.access, &login, ExpectedOwner::Home(&location.home_id), &final_statements)
            .await
            .map_err(Box::new)?)
    }

    fn write_config_and_receipt(&self, when: When) -> Result<(), ExchangeError> {
        let read = |path: &Path| {
            let text = files::read_text(path, 1024 * 1024).map_err(|source| io_error("read", path, source))?;
            text.ok_or_else(|| io_error("read", path, io::ErrorKind::NotFound.into()))
        };
        config::exchange(self.home, &read(&self.restore_dir.config(when))?)?;
        let (receipt, text) = (self.home.receipt(), read(&self.restore_dir.receipt(when))?);
        if files::read_text(&receipt, 1024 * 1024).is_ok_and(|current| current.as_deref() == Some(text.as_str())) {
            return Ok(());
        }
        let target = receipt.canonicalize().unwrap_or_else(|_| receipt.clone());
        files::write_atomic(&target, text.as_bytes(), 0o600).map_err(|source| io_error("write", &receipt, source))
    }

    /// Turns the restore directory into the record of the replaced state, so that an undo can exchange it back.
    fn retain_replaced(&self) -> Result<(), ExchangeError> {
        let restore_dir = &self.restore_dir;
        for (from, to) in [
            (restore_dir.config(When::Before), restore_dir.config(When::After)),
            (restore_dir.receipt(When::Before), restore_dir.receipt(When::After)),
        ] {
            self.rename_if_there(&from, &to)?;
        }
        let (before, after) = (restore_dir.content(When::Before), restore_dir.content(When::After));
        content::rename(&before, &after).map_err(|source| io_error("move", &before, source))?;
        self.workspace().retain_replaced()?;
        self.task_logs().retain_replaced()?;
        // End the quarantine before the journal: otherwise a kill between the two lets `put_back` remove the new
        // cluster.
        quarantine::finish(self.home)
            .map_err(|source| io_error("remove the note about", &self.home.postgres(), source))?;
        restore_dir
            .write_retained(&self.plan.retained, &self.plan.task_logs)
            .map_err(|source| io_error("write", restore_dir.folder(), source))
    }

    /// Discards older retained states, except the only copy of a workspace. Errors are ignored: a state that cannot be
    /// removed now becomes a leftover.
    async fn discard_older(&self) {
        let retained_by_earlier = || {
            restore_dir::all(self.home)
                .into_iter()
                .flatten()
                .filter(|older| older.id != self.restore_dir.id && !older.is_only_copy())
        };
        for older in retained_by_earlier() {
            let _ = older.discard_retained();
        }
        if self.access.owns_server()
            && drop_leftovers(self.access, std::slice::from_ref(&self.restore_dir.id)).await.is_err()
        {
            return;
        }
        for older in retained_by_earlier() {
            let _ = older.remove();
        }
    }
}

/// Name of the row in `instance_fact` that records the mark of the last exchange.
const MARK: &str = "exchange";

/// Swaps the names of the application database and the standby, the database of the state that is not current.
async fn swap_in_transaction(client: &mut Client, standby: &str, temporary_name: &str) -> Result<(), ExchangeError> {
    for name in [APPLICATION_DATABASE, standby] {
        databases::end_sessions(client, Sessions::In(name)).await?;
    }
    let transaction = client.transaction().await.map_err(PgError::from)?;
    for (from, to) in
        [(APPLICATION_DATABASE, temporary_name), (standby, APPLICATION_DATABASE), (temporary_name, standby)]
    {
        let rename = format!("ALTER DATABASE {from} RENAME TO {to}");
        transaction.batch_execute(&rename).await.map_err(PgError::from)?;
    }
    transaction.commit().await.map_err(PgError::from)?;
    Ok(())
}

/// Allows or refuses connections to these databases.
async fn allow_connections(client: &Client, names: [&str; 2], connections: Connections) -> Result<(), PgError> {
    for name in names {
        databases::set_connections(client, name, connections).await?;
    }
    Ok(())
}

/// The object id of a database; `None` if it does not exist.
pub(super) async fn database_oid(client: &Client, name: &str) -> Result<Option<u32>, PgError> {
    let row = client.query_opt("SELECT oid FROM pg_database WHERE datname = $1::text::name", &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Lists the conflicts folders of earlier exchanges.
pub fn conflicts(home: &Home) -> Vec<PathBuf> {
    let is_conflicts =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CONFLICTS));
    exchanged(home).filter(is_conflicts).collect()
}

/// Lists the folders that exchanges leave in place.
pub fn fixed(home: &Home) -> Vec<PathBuf> {
    exchanged(home).filter(|path| obstacles::is_fixed(path)).collect()
}

/// The entries of the workspace and of the task logs.
fn exchanged(home: &Home) -> impl Iterator<Item = PathBuf> {
    let workspace = config::load(&home.config()).ok().flatten().and_then(|loaded| loaded.config.workspace);
    let roots = workspace.into_iter().chain([home.task_logs()]);
    roots.filter_map(|folder| folders::entries(&folder).ok()).flatten()
}
