//! Putting one whole state in the place of another: workspace, task logs, database, configuration.
//! Each step is a few renames, written into the journal before it acts and after it has; each finds
//! from what is on the disk how far it came, so that it can be gone on with. A step that fails turns
//! the whole back; a process that was killed is gone on with by the next start.

use super::content;
use super::exchange_content::SideContent;
use super::exchange_error::{ExchangeError, io_error};
use super::exchange_tree::{CONFLICTS, Tree, TreeExchange};
use super::own_backups::OwnBackups;
use super::scratch::{RestoreId, drop_strays};
use super::set_aside;
use super::side::{self, Kept, Side, When};
use super::stays::Stays;
use crate::config::{self};
use crate::home::Home;
use crate::home::journal::{Entry, Journal, Operation};
use crate::postgres::{APPLICATION_DATABASE, Access, PgError, database_attributes};
use crate::sys::{files, may_fail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the journal carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    pub id: String,
    /// The folder in force, real; `None` when the workspace is left alone.
    pub workspace: Option<PathBuf>,
    /// Where its other content is: folders `in` and `out`.
    pub workspace_side: PathBuf,
    /// The folder of the task logs, real, and where its other content is.
    pub task_logs: PathBuf,
    pub task_logs_side: PathBuf,
    /// The object id of the database that is in force before; 0 where the server is somebody else's.
    pub database: u32,
    /// Says in the database, where the server is somebody else's, that this exchange was made.
    #[serde(default)]
    pub mark: String,
    pub kept: Kept,
    /// Turned back after a step had failed.
    #[serde(default)]
    pub backward: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    MoveOut,
    MoveIn,
    CarryOver,
    LogsOut,
    LogsIn,
    TaskLogs,
    Database,
    Config,
    Settle,
    Forget,
}

const STEPS: [Step; 10] = [
    Step::MoveOut,
    Step::MoveIn,
    Step::CarryOver,
    Step::LogsOut,
    Step::LogsIn,
    Step::TaskLogs,
    Step::Database,
    Step::Config,
    Step::Settle,
    Step::Forget,
];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::MoveOut => "move-out",
            Self::MoveIn => "move-in",
            Self::CarryOver => "carry-over",
            Self::LogsOut => "task-logs-out",
            Self::LogsIn => "task-logs-in",
            Self::TaskLogs => "task-logs",
            Self::Database => "database",
            Self::Config => "config",
            Self::Settle => "settle",
            Self::Forget => "forget",
        }
    }

    /// From here on it can only be finished.
    fn is_past_return(self) -> bool {
        matches!(self, Self::Settle | Self::Forget)
    }
}

/// Makes the exchange. Everything that comes into force is on the disk already and checked; nobody
/// else uses the home or is connected to its databases.
pub async fn exchange(home: &Home, access: &Access, operation: Operation, swap: Swap) -> Result<(), ExchangeError> {
    let names = STEPS.iter().map(|step| step.name().to_owned()).collect();
    let mut work = Work::new(home, access, swap)?;
    work.flush()?;
    let mut journal = Journal::begin_with(home, operation, names, work.plan()?)?;
    work.forward(&mut journal, 0).await?;
    Ok(journal.finish()?)
}

/// What came of an exchange that was gone on with.
#[derive(Debug)]
pub enum Resumed {
    /// The new state is in force.
    Finished,
    /// The old one is: it had been turned back, or was now, for this reason.
    TakenBack(Option<Box<ExchangeError>>),
}

/// Goes on with an exchange that was interrupted.
pub async fn resume(home: &Home, access: &Access, entry: Entry) -> Result<Resumed, ExchangeError> {
    if entry.steps.iter().map(String::as_str).ne(STEPS.iter().map(|step| step.name())) {
        return Err(ExchangeError::OtherSteps);
    }
    let swap: Swap =
        serde_json::from_value(entry.plan.clone()).map_err(|error| ExchangeError::Plan(error.to_string()))?;
    let (at, backward) = (entry.at, swap.backward);
    let mut work = Work::new(home, access, swap)?;
    let mut journal = Journal::resume(home, entry);
    if backward {
        work.backward(&mut journal, at).await?;
        journal.finish()?;
        return Ok(Resumed::TakenBack(None));
    }
    match work.forward(&mut journal, at).await {
        Ok(()) => journal.finish().map(|()| Resumed::Finished).map_err(ExchangeError::from),
        Err(ExchangeError::TurnedBack(why)) => Ok(Resumed::TakenBack(Some(why))),
        Err(error) => Err(error),
    }
}

struct Work<'a> {
    home: &'a Home,
    access: &'a Access,
    swap: Swap,
    side: Side,
    stays: Stays,
    own: OwnBackups,
}

impl<'a> Work<'a> {
    fn new(home: &'a Home, access: &'a Access, swap: Swap) -> Result<Self, ExchangeError> {
        let id = RestoreId::parse(&swap.id).ok_or_else(|| ExchangeError::Plan(format!("{:?} is no id", swap.id)))?;
        let side = Side::of(home, id);
        let stays = Stays::read(&side.stays()).map_err(|source| io_error("read", &side.stays(), source))?;
        Ok(Self { home, access, side, swap, stays, own: OwnBackups::of(home) })
    }

    /// A path that is not text cannot be written down: that is found out before anything moves.
    fn plan(&self) -> Result<serde_json::Value, ExchangeError> {
        serde_json::to_value(&self.swap).map_err(|error| ExchangeError::Plan(error.to_string()))
    }

    async fn forward(&mut self, journal: &mut Journal, from: usize) -> Result<(), ExchangeError> {
        for (at, step) in STEPS.into_iter().enumerate().skip(from) {
            if let Err(error) = self.act(step).await {
                if step.is_past_return() {
                    return Err(error);
                }
                self.swap.backward = true;
                journal.set_plan(self.plan()?)?;
                return Err(match self.backward(journal, at).await {
                    Ok(()) => {
                        journal.remove()?;
                        ExchangeError::TurnedBack(Box::new(error))
                    }
                    Err(second) => ExchangeError::Stuck(Box::new(error), Box::new(second)),
                });
            }
            journal.advance()?;
        }
        Ok(())
    }

    async fn backward(&mut self, journal: &mut Journal, at: usize) -> Result<(), ExchangeError> {
        for (at, step) in STEPS.into_iter().enumerate().take(at + 1).rev() {
            journal.set_at(at)?;
            self.take_back(step).await?;
        }
        Ok(())
    }

    async fn act(&self, step: Step) -> Result<(), ExchangeError> {
        match step {
            Step::MoveOut => self.workspace().move_out()?,
            Step::MoveIn => self.workspace().move_in()?,
            Step::CarryOver => self.workspace().carry_over()?,
            Step::LogsOut => self.task_logs().move_out()?,
            Step::LogsIn => self.task_logs().move_in()?,
            Step::TaskLogs => self.task_logs().carry_over()?,
            Step::Database => self.exchange_databases(true).await?,
            Step::Config => self.put_files(When::After)?,
            Step::Settle => self.settle()?,
            Step::Forget => self.forget_older().await,
        }
        self.flush()?;
        let name = format!("exchange.{}", step.name());
        may_fail(&name).map_err(|source| io_error("finish", Path::new(&name), source))
    }

    async fn take_back(&self, step: Step) -> Result<(), ExchangeError> {
        match step {
            Step::MoveOut => self.workspace().move_back_out()?,
            Step::MoveIn => self.workspace().move_back_in()?,
            Step::CarryOver => self.workspace().carry_back()?,
            Step::LogsOut => self.task_logs().move_back_out()?,
            Step::LogsIn => self.task_logs().move_back_in()?,
            Step::TaskLogs => self.task_logs().carry_back()?,
            Step::Database => self.exchange_databases(false).await?,
            Step::Config => self.put_files(When::Before)?,
            Step::Settle | Step::Forget => {}
        }
        self.flush()
    }

    /// The renames of a step reach the disk before the journal says so.
    fn flush(&self) -> Result<(), ExchangeError> {
        let places = [Some(self.home.root()), self.swap.workspace.as_deref(), Some(self.swap.task_logs.as_path())];
        for place in places.into_iter().flatten().filter(|place| place.exists()) {
            files::sync_file_system(place).map_err(|source| io_error("flush", place, source))?;
        }
        Ok(())
    }

    fn workspace(&self) -> TreeExchange<'_> {
        let root = self.swap.workspace.as_deref();
        TreeExchange {
            tree: Tree::Workspace(&self.own),
            root,
            beside: &self.swap.workspace_side,
            names: self.side.names(),
            carried: self.side.carried(),
            conflicts: self.conflicts_in(root.unwrap_or(Path::new(""))),
            stays: &self.stays.workspace,
        }
    }

    fn task_logs(&self) -> TreeExchange<'_> {
        TreeExchange {
            tree: Tree::TaskLogs,
            root: Some(&self.swap.task_logs),
            beside: &self.swap.task_logs_side,
            names: self.side.log_names(),
            carried: self.side.carried_logs(),
            conflicts: self.conflicts_in(&self.swap.task_logs),
            stays: &self.stays.task_logs,
        }
    }

    fn conflicts_in(&self, root: &Path) -> PathBuf {
        root.join(format!("{CONFLICTS}{}", self.side.id.as_str()))
    }

    fn rename_if_there(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        match files::is_there(from) {
            Ok(false) => Ok(()),
            Ok(true) => files::rename_durably(from, to).map_err(|source| io_error("move", from, source)),
            Err(source) => Err(io_error("move", from, source)),
        }
    }

    async fn exchange_databases(&self, forward: bool) -> Result<(), ExchangeError> {
        match self.access.is_ours() {
            true => self.rename_databases(forward).await,
            false => {
                let content = SideContent { home: self.home, access: self.access, side: &self.side };
                content.exchange(&self.swap.mark, forward).await
            }
        }
    }

    /// Both renames in one transaction. Which database is which is told by its object id.
    async fn rename_databases(&self, forward: bool) -> Result<(), ExchangeError> {
        let mut client = self.access.superuser("postgres").await?;
        let is_old = database_oid(&client, APPLICATION_DATABASE).await? == Some(self.swap.database);
        let (side, between) = (self.side.id.side_database(), format!("leoflow_between_{}", self.side.id.as_str()));
        if is_old != forward {
            return Ok(allow_connections(&client, [APPLICATION_DATABASE, &side], true).await?);
        }
        if forward && is_old {
            // A dump has none of them.
            database_attributes::carry(&client, APPLICATION_DATABASE, &side).await?;
        }
        // A database that somebody is connected to cannot be renamed, and somebody may always come.
        allow_connections(&client, [APPLICATION_DATABASE, &side], false).await?;
        let renamed = self.rename_in_one(&mut client, &side, &between).await;
        allow_connections(&client, [APPLICATION_DATABASE, &side], true).await?;
        renamed
    }

    async fn rename_in_one(
        &self,
        client: &mut tokio_postgres::Client,
        side: &str,
        between: &str,
    ) -> Result<(), ExchangeError> {
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ($1::text::name, $2::text::name)";
        client.execute(end, &[&APPLICATION_DATABASE, &side]).await.map_err(PgError::from)?;
        let transaction = client.transaction().await.map_err(PgError::from)?;
        for (from, to) in [(APPLICATION_DATABASE, between), (side, APPLICATION_DATABASE), (between, side)] {
            let rename = format!("ALTER DATABASE {from} RENAME TO {to}");
            transaction.batch_execute(&rename).await.map_err(PgError::from)?;
        }
        transaction.commit().await.map_err(PgError::from)?;
        Ok(())
    }

    fn put_files(&self, when: When) -> Result<(), ExchangeError> {
        let read = |path: &Path| {
            let text = files::read_text(path, 1024 * 1024).map_err(|source| io_error("read", path, source))?;
            text.ok_or_else(|| io_error("read", path, io::ErrorKind::NotFound.into()))
        };
        config::exchange(self.home, &read(&self.side.config(when))?)?;
        let (receipt, text) = (self.home.receipt(), read(&self.side.receipt(when))?);
        if files::read_text(&receipt, 1024 * 1024).is_ok_and(|current| current.as_deref() == Some(text.as_str())) {
            return Ok(());
        }
        let target = receipt.canonicalize().unwrap_or_else(|_| receipt.clone());
        files::write_atomic(&target, text.as_bytes(), 0o600).map_err(|source| io_error("write", &receipt, source))
    }

    /// What was in force becomes what is kept: under the names that the next exchange expects.
    fn settle(&self) -> Result<(), ExchangeError> {
        let side = &self.side;
        for pair in [
            (side.config(When::Before), side.config(When::After)),
            (side.receipt(When::Before), side.receipt(When::After)),
        ] {
            self.rename_if_there(&pair.0, &pair.1)?;
        }
        let (before, after) = (side.content(When::Before), side.content(When::After));
        content::rename(&before, &after).map_err(|source| io_error("move", &before, source))?;
        self.workspace().settle()?;
        self.task_logs().settle()?;
        // Before the journal says that all is done: afterwards nobody may take the fresh cluster for a left-over.
        set_aside::settle(self.home).map_err(|source| io_error("remove the note of", &self.home.postgres(), source))?;
        side.write_kept(&self.swap.kept, &self.swap.task_logs)
            .map_err(|source| io_error("write", side.folder(), source))
    }

    /// One state is kept, the last one that was replaced. What of the others cannot be removed now is a
    /// stray from here on: it is no reason to leave this one half done.
    async fn forget_older(&self) {
        let others =
            || side::all(self.home).into_iter().filter(|older| older.id != self.side.id && !older.is_the_only());
        for older in others() {
            let _ = older.forget_kept();
        }
        if self.access.is_ours() && drop_strays(self.access, std::slice::from_ref(&self.side.id)).await.is_err() {
            return;
        }
        for older in others() {
            let _ = older.remove();
        }
    }
}

/// Folders with what was in the way of an exchange.
pub fn conflicts(home: &Home) -> Vec<PathBuf> {
    let workspace = config::load(&home.config()).ok().flatten().and_then(|loaded| loaded.config.workspace);
    let roots = workspace.into_iter().chain([home.task_logs()]);
    let entries = roots.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(CONFLICTS))
        .map(|entry| entry.path())
        .collect()
}

/// Whether anybody may connect to these databases. A superuser is no exception.
async fn allow_connections(client: &tokio_postgres::Client, names: [&str; 2], allow: bool) -> Result<(), PgError> {
    for name in names {
        client.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}")).await?;
    }
    Ok(())
}

/// The object id of a database, if there is one of that name.
pub async fn database_oid(client: &tokio_postgres::Client, name: &str) -> Result<Option<u32>, PgError> {
    let row = client.query_opt("SELECT oid FROM pg_database WHERE datname = $1::text::name", &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}
