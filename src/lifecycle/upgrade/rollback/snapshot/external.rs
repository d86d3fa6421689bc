//! Snapshots on an external server, where Leoflow renames no database, terminates no session and refuses no connection.
//! The snapshot is a database if the role may create one and no other session is connected, otherwise a file in the
//! home. A restore replaces the current content with the snapshot's in one transaction.

use super::{PREFIX, cancel_and_drop, copy};
use crate::backup::content::{self, Content, ContentError, ExpectedOwner};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_postgres::databases::{self, drop_if_exists};
use leoflow_postgres::external::claim::Claim;
use leoflow_postgres::{Access, Login, PgError, instance_fact, location};
use std::path::PathBuf;
use tokio_postgres::Client;

/// The path of a snapshot that is a file.
fn content_file(home: &Home, name: &str) -> PathBuf {
    home.upgrade().join(format!("{name}{CONTENT_SUFFIX}"))
}

/// The path of the marker, an empty file, of a snapshot that is a database. The marker is written before the database
/// is created.
fn marker_file(home: &Home, name: &str) -> PathBuf {
    home.upgrade().join(format!("{name}{DATABASE_SUFFIX}"))
}

/// Name suffix of a snapshot that is a file.
const CONTENT_SUFFIX: &str = ".content";
/// Name suffix of the marker of a snapshot that is a database.
const DATABASE_SUFFIX: &str = ".database";

/// Adds the folder of the snapshots to an error.
fn io_error(home: &Home) -> impl Fn(std::io::Error) -> ContentError + '_ {
    |source| ContentError::Io { path: home.upgrade(), source }
}

pub async fn take(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    let login = access.application();
    // Fail before any change if a later restore would be impossible.
    content::check_replaceable(access, &login).await?;
    files::create_private_dir(&home.upgrade()).map_err(io_error(home))?;
    files::write_atomic(&marker_file(home, name), b"", 0o600).map_err(io_error(home))?;
    if copy_to_database(access, name).await.is_ok() {
        return Ok(());
    }
    Content::write(access, &login, &content_file(home, name)).await?;
    files::remove_any(&marker_file(home, name)).map_err(io_error(home))
}

async fn copy_to_database(access: &Access, name: &str) -> Result<(), PgError> {
    let upkeep = access.upkeep().await?;
    drop_if_exists(&upkeep, name).await?;
    copy(&upkeep, &access.application().database, name, None).await
}

/// Drops a snapshot that may be incomplete.
pub async fn discard(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    if let Some(upkeep) = connect_upkeep(home, access, name).await? {
        cancel_and_drop(&upkeep, name).await?;
    }
    remove_files(home, name)
}

pub async fn remove(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    if let Some(upkeep) = connect_upkeep(home, access, name).await? {
        drop_if_exists(&upkeep, name).await?;
    }
    remove_files(home, name)
}

/// Connects to the maintenance database. `None` if no snapshot database can exist: the role has no access, or no marker
/// was written.
async fn connect_upkeep(home: &Home, access: &Access, name: &str) -> Result<Option<Client>, PgError> {
    match access.upkeep().await {
        Ok(upkeep) => Ok(Some(upkeep)),
        Err(error) if marker_file(home, name).exists() && !is_access_denied(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// True when the server is reachable but denies this role access.
fn is_access_denied(error: &PgError) -> bool {
    let is_denied = error.sql_state().is_some_and(|state| state.code().starts_with("42"));
    is_denied || matches!(error, PgError::WrongPassword | PgError::NoDatabase)
}

fn remove_files(home: &Home, name: &str) -> Result<(), ContentError> {
    content::remove(&content_file(home, name)).map_err(io_error(home))?;
    files::remove_any(&marker_file(home, name)).map_err(io_error(home))
}

/// Name of the row in `instance_fact` that records the restored snapshot, so that a rerun does not overwrite newer
/// data.
const RESTORED: &str = "put-back";

pub async fn restore(home: &Home, access: &Access, name: &str) -> Result<bool, ContentError> {
    let Some(content) = snapshot_content(home, access, name).await? else { return Ok(false) };
    let login = access.application();
    let client = access.connect(&login).await?;
    let last_restored = instance_fact::read(&client, RESTORED).await?;
    drop(client);
    if last_restored.as_deref() != Some(name.as_bytes()) {
        let recorded_location = location::recorded(home).ok().flatten().ok_or(PgError::NotManaged)?;
        let last_statements =
            [instance_fact::statement(RESTORED, name), Claim::of(home, &recorded_location).statement()];
        content.import_into(access, &login, ExpectedOwner::Home(&recorded_location.home_id), &last_statements).await?;
    }
    // `remove` drops the database before the file: otherwise a rerun after a kill would export the database again.
    remove(home, access, name).await?;
    Ok(true)
}

/// The content of a snapshot, which for a database is first exported to a file. `None` if the snapshot does not exist.
async fn snapshot_content(home: &Home, access: &Access, name: &str) -> Result<Option<Content>, ContentError> {
    let path = content_file(home, name);
    if let Some(content) = Content::at(&path).map_err(io_error(home))? {
        return Ok(Some(content));
    }
    if !marker_file(home, name).exists() || !databases::exists(&access.upkeep().await?, name).await? {
        return Ok(None);
    }
    let login = Login { database: name.to_owned(), ..access.application() };
    Content::write(access, &login, &path).await.map(Some)
}

/// Drops this home's snapshots except `keep`. Finds them by their files and markers.
pub async fn drop_others(home: &Home, access: &Access, keep: Option<&str>) -> Result<(), ContentError> {
    for name in recorded_names(home) {
        if Some(name.as_str()) != keep {
            remove(home, access, &name).await?;
        }
    }
    Ok(())
}

/// Deletes the files and markers of all snapshots.
pub fn forget_files(home: &Home) -> std::io::Result<()> {
    for name in recorded_names(home) {
        content::remove(&content_file(home, &name))?;
        files::remove_any(&marker_file(home, &name))?;
    }
    Ok(())
}

/// The names of this home's snapshots, from their files and markers.
fn recorded_names(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.upgrade()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let name = name.strip_suffix(CONTENT_SUFFIX).or_else(|| name.strip_suffix(DATABASE_SUFFIX))?;
        name.starts_with(PREFIX).then(|| name.to_owned())
    });
    names.collect()
}
