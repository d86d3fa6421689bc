//! The same on a server that is somebody else's, where a database of ours is one among others: nothing is renamed, and
//! nobody is cut off or kept out. The copy is a database where the role may make one and nobody else is connected, and a
//! file in the home otherwise. To go back, the content of either comes in the place of what is there, in one transaction.

use super::{PREFIX, copy, drop_one, exists, give_up};
use crate::backup::content::{self, Content, ContentError, Whose};
use crate::home::Home;
use crate::postgres::claim::Claim;
use crate::postgres::{Access, Login, PgError, instance_fact, place};
use crate::sys::files;
use std::path::PathBuf;
use tokio_postgres::Client;

/// Where a copy is a file.
fn file(home: &Home, name: &str) -> PathBuf {
    home.upgrade().join(format!("{name}{CONTENT}"))
}

/// Says that the copy is a database; written before it is made.
fn note(home: &Home, name: &str) -> PathBuf {
    home.upgrade().join(format!("{name}{DATABASE}"))
}

const CONTENT: &str = ".content";
const DATABASE: &str = ".database";

fn io(home: &Home) -> impl Fn(std::io::Error) -> ContentError + '_ {
    |source| ContentError::Io { path: home.upgrade(), source }
}

pub async fn take(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    let login = access.application();
    // What could not be gone back from is not begun.
    content::check_replaceable(access, &login).await?;
    files::create_private_dir(&home.upgrade()).map_err(io(home))?;
    files::write_atomic(&note(home, name), b"", 0o600).map_err(io(home))?;
    if copy_there(access, name).await.is_ok() {
        return Ok(());
    }
    Content::write(access, &login, &file(home, name)).await?;
    files::remove_any(&note(home, name)).map_err(io(home))
}

async fn copy_there(access: &Access, name: &str) -> Result<(), PgError> {
    let upkeep = access.upkeep().await?;
    drop_one(&upkeep, name).await?;
    copy(&upkeep, &access.application().database, name, None).await
}

/// Gives up one that may be half made.
pub async fn forget(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    if let Some(upkeep) = upkeep(home, access, name).await? {
        give_up(&upkeep, name).await?;
    }
    remove_files(home, name)
}

pub async fn remove(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    if let Some(upkeep) = upkeep(home, access, name).await? {
        drop_one(&upkeep, name).await?;
    }
    remove_files(home, name)
}

/// `None` where this role has made no database: it is not let in where that is done, or has noted none.
async fn upkeep(home: &Home, access: &Access, name: &str) -> Result<Option<Client>, PgError> {
    match access.upkeep().await {
        Ok(upkeep) => Ok(Some(upkeep)),
        Err(error) if note(home, name).exists() && !is_shut_out(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether the server answers, and refuses this role.
fn is_shut_out(error: &PgError) -> bool {
    let by_rights = error.sql_state().is_some_and(|state| state.code().starts_with("42"));
    by_rights || matches!(error, PgError::WrongPassword | PgError::NoDatabase)
}

fn remove_files(home: &Home, name: &str) -> Result<(), ContentError> {
    content::remove(&file(home, name)).map_err(io(home))?;
    files::remove_any(&note(home, name)).map_err(io(home))
}

/// Says in the database that it was put back: what is written from then on is not replaced once more.
const PUT_BACK: &str = "put-back";

pub async fn put_back(home: &Home, access: &Access, name: &str) -> Result<bool, ContentError> {
    let Some(content) = content_of(home, access, name).await? else { return Ok(false) };
    let login = access.application();
    let client = access.connect(&login).await?;
    let last_put_back = instance_fact::read(&client, PUT_BACK).await?;
    drop(client);
    if last_put_back.as_deref() != Some(name.as_bytes()) {
        let place = place::recorded(home).ok().flatten().ok_or(PgError::NotOurs)?;
        let last = [instance_fact::statement(PUT_BACK, name), Claim::of(home, &place).statement()];
        content.bring_into(access, &login, Whose::Homes(&place.home_id), &last).await?;
    }
    // The database first: it is what the file would be made of again.
    remove(home, access, name).await?;
    Ok(true)
}

async fn content_of(home: &Home, access: &Access, name: &str) -> Result<Option<Content>, ContentError> {
    let path = file(home, name);
    if let Some(content) = Content::at(&path).map_err(io(home))? {
        return Ok(Some(content));
    }
    if !note(home, name).exists() || !exists(&access.upkeep().await?, name).await? {
        return Ok(None);
    }
    let login = Login { database: name.to_owned(), ..access.application() };
    Content::write(access, &login, &path).await.map(Some)
}

/// Those that this home has made, by what it has noted.
pub async fn drop_others(home: &Home, access: &Access, keep: Option<&str>) -> Result<(), ContentError> {
    for name in noted(home) {
        if Some(name.as_str()) != keep {
            remove(home, access, &name).await?;
        }
    }
    Ok(())
}

/// What is here of all of them.
pub fn forget_files(home: &Home) -> std::io::Result<()> {
    for name in noted(home) {
        content::remove(&file(home, &name))?;
        files::remove_any(&note(home, &name))?;
    }
    Ok(())
}

fn noted(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.upgrade()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let name = name.strip_suffix(CONTENT).or_else(|| name.strip_suffix(DATABASE))?;
        name.starts_with(PREFIX).then(|| name.to_owned())
    });
    names.collect()
}
