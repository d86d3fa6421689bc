//! The database as it was before an upgrade, kept beside it: a copy made while nobody is connected, and two
//! renames in one transaction to come back to it. What it is on a server that is somebody else's is in `elsewhere`.

mod elsewhere;

use super::history;
use crate::backup::content::ContentError;
use crate::backup::quoted;
use crate::home::Home;
use crate::postgres::{APPLICATION_DATABASE, APPLICATION_ROLE, Access, PgError, database_attributes};
use crate::sys::random;
use std::io;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, GenericClient};

/// What the names of snapshots begin with.
const PREFIX: &str = "leoflow_before_";
/// What a database is called that an upgrade has failed with.
const FAILED: &str = "leoflow_failed_upgrade";
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// A name that no snapshot has had: what is brought back is never that of an earlier upgrade.
pub fn name(version: &semver::Version) -> String {
    let unique = hex::encode(random::bytes::<4>());
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = version.to_string().chars().map(plain).collect();
    // PostgreSQL cuts longer names.
    format!("{PREFIX}{unique}_{name}").chars().take(63).collect()
}

/// Writes out what is in memory, so that the copy has less to wait for.
pub async fn prepare(access: &Access) -> Result<(), PgError> {
    if !access.is_ours() {
        return Ok(());
    }
    let upkeep = access.superuser("postgres").await?;
    drop_one(&upkeep, FAILED).await?;
    Ok(upkeep.batch_execute("CHECKPOINT").await?)
}

/// Copies the application's database, which nobody uses. What is connected all the same is cut off.
pub async fn take(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    match access.is_ours() {
        true => Ok(take_ours(access, name).await?),
        false => elsewhere::take(home, access, name).await,
    }
}

async fn take_ours(access: &Access, name: &str) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    drop_one(&upkeep, name).await?;
    let taken = match empty(&upkeep, APPLICATION_DATABASE).await {
        Ok(()) => copy_ours(&upkeep, name).await,
        Err(error) => Err(error),
    };
    let opened = open(&upkeep, APPLICATION_DATABASE).await;
    taken.and(opened)
}

/// The same, of a database that nobody is connected to, and nobody is kept out of: an error where somebody is.
pub async fn copy_idle(access: &Access, name: &str) -> Result<(), PgError> {
    match access.is_ours() {
        true => copy_ours(&access.superuser("postgres").await?, name).await,
        false => copy(&access.upkeep().await?, &access.application().database, name, None).await,
    }
}

async fn copy_ours(upkeep: &Client, name: &str) -> Result<(), PgError> {
    copy(upkeep, APPLICATION_DATABASE, name, Some(APPLICATION_ROLE)).await?;
    database_attributes::carry(upkeep, APPLICATION_DATABASE, name).await
}

/// Gives up one that may be half made: whoever still makes it is ended first. Everybody may connect again.
pub async fn forget(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    match access.is_ours() {
        true => Ok(forget_ours(access, name).await?),
        false => elsewhere::forget(home, access, name).await,
    }
}

async fn forget_ours(access: &Access, name: &str) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    give_up(&upkeep, name).await?;
    open(&upkeep, APPLICATION_DATABASE).await
}

/// Ends whoever makes one, and drops what is there of it.
async fn give_up(upkeep: &Client, name: &str) -> Result<(), PgError> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE pid <> pg_backend_pid() AND query LIKE 'CREATE DATABASE ' || $1::text || ' %'";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !upkeep.query(end, &[&name]).await?.is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
    drop_one(upkeep, name).await
}

/// Drops one.
pub async fn remove(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    match access.is_ours() {
        true => Ok(drop_one(&access.superuser("postgres").await?, name).await?),
        false => elsewhere::remove(home, access, name).await,
    }
}

/// Up to this a copy goes through the write-ahead log, bytes. A copy of files waits for two checkpoints, and those
/// for whatever else the machine writes: seconds for a database of 8 MB beside two busy cores, against a tenth of one.
const SMALL: i64 = 64 * 1024 * 1024;

/// A template that nobody is connected to. It becomes the owner's, or of whoever makes it.
async fn copy(upkeep: &Client, template: &str, name: &str, owner: Option<&str>) -> Result<(), PgError> {
    let size: i64 = upkeep.query_one("SELECT pg_database_size($1::text::name)", &[&template]).await?.get(0);
    let owner = owner.map(|role| format!("OWNER {role} ")).unwrap_or_default();
    let create = |way: &str| format!("CREATE DATABASE {name} TEMPLATE {} {owner}STRATEGY {way}", quoted(template));
    if size <= SMALL {
        return Ok(upkeep.batch_execute(&create("WAL_LOG")).await?);
    }
    // Shares the blocks where the file system can; elsewhere it is a copy in the kernel.
    let cloned = upkeep.batch_execute("SET file_copy_method = clone").await;
    match upkeep.batch_execute(&create("FILE_COPY")).await {
        Err(_) if cloned.is_ok() => {
            upkeep.batch_execute("RESET file_copy_method").await?;
            upkeep.batch_execute(&create("FILE_COPY")).await?;
        }
        created => created?,
    }
    Ok(())
}

/// How long a copy of this database takes, to which nobody is connected. The copy is dropped again.
pub async fn time_copy(access: &Access, template: &str, name: &str) -> Result<Duration, PgError> {
    let upkeep = access.upkeep().await?;
    drop_one(&upkeep, name).await?;
    let owner = access.is_ours().then_some(APPLICATION_ROLE);
    if owner.is_some() {
        upkeep.batch_execute("CHECKPOINT").await?;
    }
    let begun = Instant::now();
    copy(&upkeep, template, name, owner).await?;
    let took = begun.elapsed();
    drop_one(&upkeep, name).await?;
    Ok(took)
}

/// Brings the snapshot back, if it is there: what is in force now is set aside, and dropped by `clean_up`. Whether
/// it was there. Done twice, it does nothing the second time.
pub async fn put_back(home: &Home, access: &Access, name: &str) -> Result<bool, ContentError> {
    match access.is_ours() {
        true => Ok(put_back_ours(access, name).await?),
        false => elsewhere::put_back(home, access, name).await,
    }
}

async fn put_back_ours(access: &Access, name: &str) -> Result<bool, PgError> {
    let mut upkeep = access.superuser("postgres").await?;
    if !exists(&upkeep, name).await? {
        open(&upkeep, APPLICATION_DATABASE).await?;
        return Ok(false);
    }
    drop_one(&upkeep, FAILED).await?;
    let has_one = exists(&upkeep, APPLICATION_DATABASE).await?;
    if has_one {
        empty(&upkeep, APPLICATION_DATABASE).await?;
    }
    let transaction = upkeep.transaction().await?;
    if has_one {
        transaction.batch_execute(&format!("ALTER DATABASE {APPLICATION_DATABASE} RENAME TO {FAILED}")).await?;
    }
    transaction.batch_execute(&format!("ALTER DATABASE {name} RENAME TO {APPLICATION_DATABASE}")).await?;
    transaction.commit().await?;
    open(&upkeep, APPLICATION_DATABASE).await?;
    Ok(true)
}

/// Drops what an upgrade has failed with.
pub async fn clean_up(access: &Access) -> Result<(), PgError> {
    if !access.is_ours() {
        return Ok(());
    }
    drop_one(&access.superuser("postgres").await?, FAILED).await
}

/// For a home whose data has moved: the copies from before stay where it was, but for those that are files here.
pub fn forget_all(home: &Home) -> io::Result<()> {
    elsewhere::forget_files(home)?;
    history::forget_snapshots(home, None)
}

/// Drops every snapshot but `keep`. On somebody else's server those of this home alone.
pub async fn drop_others(home: &Home, access: &Access, keep: Option<&str>) -> Result<(), ContentError> {
    match access.is_ours() {
        true => Ok(drop_others_of_ours(access, keep).await?),
        false => elsewhere::drop_others(home, access, keep).await,
    }
}

async fn drop_others_of_ours(access: &Access, keep: Option<&str>) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let query = "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)";
    for row in upkeep.query(query, &[&PREFIX]).await? {
        let name: String = row.get(0);
        if Some(name.as_str()) != keep {
            drop_one(&upkeep, &name).await?;
        }
    }
    Ok(())
}

async fn exists(client: &impl GenericClient, name: &str) -> Result<bool, PgError> {
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text::name)";
    Ok(client.query_one(query, &[&name]).await?.get(0))
}

async fn drop_one(upkeep: &Client, name: &str) -> Result<(), PgError> {
    Ok(upkeep.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name))).await?)
}

/// Lets nobody in, and cuts off who is there.
async fn empty(upkeep: &Client, database: &str) -> Result<(), PgError> {
    upkeep.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quoted(database))).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // Backends that are ending are still counted.
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1::text::name";
        let left: i64 = upkeep.query_one(cut, &[&database]).await?.get(0);
        if left == 0 || tokio::time::Instant::now() >= deadline {
            // One that resists makes the next statement fail, and say so.
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(upkeep: &Client, database: &str) -> Result<(), PgError> {
    if exists(upkeep, database).await? {
        upkeep.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", quoted(database))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_after_the_release() {
        let candidate = semver::Version::parse("0.2.0-rc1").unwrap();
        let (one, other) = (name(&candidate), name(&candidate));
        assert!(one.starts_with(PREFIX) && one.ends_with("_0_2_0_rc1"), "{one}");
        assert_ne!(one, other);
        let long = format!("1.2.3-{}", "a".repeat(99));
        assert_eq!(name(&semver::Version::parse(&long).unwrap()).len(), 63);
    }
}
