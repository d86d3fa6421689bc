//! An uninstall between its prompts: what is in the home, the plan, and its application.

use super::apply::{may_have_removed_something, purge, remove_programs};
use super::plan::{Request, UninstallPlan, plan};
use super::removal::RemoveError;
use super::scan::gather;
use leoflow_base::home::journal::{self, Entry, Operation};
use leoflow_base::home::lock::HomeLock;
use leoflow_base::home::progress::Reporter;
use leoflow_base::home::{Home, LOST_AND_FOUND};
use leoflow_base::sys::fs::folders;
use leoflow_postgres::Endpoint;
use leoflow_postgres::location::{self, Location};
use leoflow_processes::supervisor;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// What an uninstall finds in a home.
pub enum HomeState {
    /// No home, or only the empty folders of a purge that was killed at its end.
    Nothing,
    /// An interrupted purge that may have removed something; only another purge finishes it.
    HalfPurged(Entry),
    /// An interrupted purge that has removed nothing.
    PurgeBegun(Entry),
    Instance,
}

pub fn find(home: &Home) -> Result<HomeState, RemoveError> {
    if !home.exists() || is_empty(home)? {
        return Ok(HomeState::Nothing);
    }
    let purge = journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Purge);
    Ok(match purge {
        Some(entry) if may_have_removed_something(&entry) => HomeState::HalfPurged(entry),
        Some(entry) => HomeState::PurgeBegun(entry),
        None => HomeState::Instance,
    })
}

fn is_empty(home: &Home) -> Result<bool, RemoveError> {
    let entries = |folder: PathBuf| -> Result<Vec<PathBuf>, RemoveError> {
        let entries = folders::entries(&folder).map_err(|source| RemoveError::Inspect { path: folder, source })?;
        Ok(entries.into_iter().filter(|path| !path.ends_with(LOST_AND_FOUND)).collect())
    };
    Ok(match entries(home.root().to_owned())?.as_slice() {
        [] => true,
        [only] => *only == home.run() && entries(home.run())?.is_empty(),
        _ => false,
    })
}

/// Removes the empty folders of a home without an instance. A mount point and a link stay.
pub fn remove_empty(home: &Home) -> Result<(), RemoveError> {
    let root = home.root();
    if !home.exists() || root.is_symlink() {
        return Ok(());
    }
    // remove_dir removes only empty folders.
    let absent = |error: io::Error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
    match fs::remove_dir(home.run()).or_else(absent).and_then(|()| fs::remove_dir(root)) {
        Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty) => Ok(()),
        removed => removed.map_err(|source| RemoveError::Io { path: root.to_owned(), source }),
    }
}

/// Plans the uninstall of an instance.
pub fn plan_of(home: &Home, request: &Request) -> Result<UninstallPlan, RemoveError> {
    Ok(plan(&gather(home, request)?, request)?)
}

/// Removes what the confirmed plan says. The caller holds the operation lock, and has stopped the instance. Returns the
/// location of data outside of the home.
pub fn apply(
    home: &Home,
    request: &Request,
    confirmed: &UninstallPlan,
    reporter: &dyn Reporter,
) -> Result<Option<Location>, RemoveError> {
    let _lock = HomeLock::take(home, "leoflow uninstall", None)?;
    supervisor::end_leftovers(home).map_err(RemoveError::Leftovers)?;
    refuse_unfinished(home, confirmed)?;
    // The prompt may have been open for long, so plan again; the result must be the same.
    let plan = plan_of(home, request)?;
    if !plan.removes_the_same(confirmed) {
        return Err(RemoveError::PlanChanged);
    }
    let data_location = location::recorded(home)?;
    match plan.purge {
        true => purge(home, &plan, reporter)?,
        false => remove_programs(home, &plan, reporter)?,
    }
    Endpoint::for_home(home).remove_socket_folder();
    Ok(data_location)
}

/// Refuses while a restore, an upgrade or a move of the datastore is unfinished. A purge ignores an unfinished restore
/// or upgrade, because it removes all data.
fn refuse_unfinished(home: &Home, plan: &UninstallPlan) -> Result<(), RemoveError> {
    let other = journal::unfinished(home)?.filter(|entry| {
        let is_change = matches!(entry.operation, Operation::Restore | Operation::RestoreUndo | Operation::Upgrade);
        // An interrupted move may have created a container, which a purge would leave behind.
        entry.operation == Operation::MoveDatastore || (is_change && !plan.purge)
    });
    other.map_or(Ok(()), |entry| Err(RemoveError::Unfinished(entry.operation)))
}
