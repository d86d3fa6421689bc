//! The creation of an instance, which leaves a complete instance or nothing.

use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_base::home::lock::HomeLock;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::setup;
use leoflow_processes::supervisor;
use std::path::Path;

/// Creates a home and runs `work`, which sets it up. After a failure, removes the home, and the workspace if it is new
/// and untouched. If this process is killed, a marker file stays, by which the next attempt and `instances list`
/// recognize the incomplete home.
pub async fn run<T>(home: &Home, workspace: &Path, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let workspace_existed = workspace.exists();
    let marker = home.creating();
    let begin = || -> std::io::Result<()> {
        home.create()?;
        files::write_atomic(&marker, b"", 0o600)
    };
    begin().map_err(Error::cannot("create", home.root()))?;
    let outcome = work.await;
    let Err(error) = outcome else {
        complete(home)?;
        return outcome;
    };
    if let Err(discard_error) = discard(home) {
        return Err(error.hint(format!("remove {}: {}", home.root().display(), discard_error.in_one_line())));
    }
    if !workspace_existed && setup::is_untouched(workspace) {
        files::remove_any(workspace).map_err(Error::cannot("remove", workspace))?;
    }
    Err(error.hint("nothing was created"))
}

/// Removes the marker of an incomplete creation, because the home has a complete instance.
pub fn complete(home: &Home) -> Result<(), Error> {
    let marker = home.creating();
    files::remove_any(&marker).map_err(Error::cannot("remove", &marker))
}

/// Removes the home of an incomplete instance.
pub fn discard(home: &Home) -> Result<(), Error> {
    // A creation that still runs holds the lock.
    let _lock = HomeLock::take(home, "leoflow instances", None)?;
    supervisor::end_leftovers(home).map_err(Error::failed)?;
    files::remove_any(home.root()).map_err(Error::cannot("remove", home.root()))
}
