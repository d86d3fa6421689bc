//! Snapshots of the database before an upgrade or rollback: copies made with `CREATE DATABASE ... TEMPLATE` while no
//! session is connected, restored by two renames in one transaction. `external` has the variant for an external server.
//! `upkeep` is a connection to the maintenance database, from which databases are created and dropped.

mod external;

use super::history;
use crate::backup::content::ContentError;
use leoflow_base::home::Home;
use leoflow_base::sys::random;
use leoflow_postgres::databases::{self, Connections, Sessions, drop_if_exists};
use leoflow_postgres::identifier::quoted;
use leoflow_postgres::{APPLICATION_DATABASE, APPLICATION_ROLE, Access, PgError, database_attributes};
use std::io;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Name prefix of all snapshots.
const PREFIX: &str = "leoflow_before_";
/// The name that the database of a failed upgrade or rollback is renamed to.
const FAILED: &str = "leoflow_failed_upgrade";
/// Poll interval while backends terminate.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Time limit for backends to terminate.
const TERMINATE_LIMIT: Duration = Duration::from_secs(10);

/// Returns a unique name, so that the snapshot of an earlier upgrade is never restored by mistake.
pub fn name(version: &semver::Version) -> String {
    let unique = hex::encode(random::bytes::<4>());
    let sanitized = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = version.to_string().chars().map(sanitized).collect();
    // PostgreSQL truncates names of more than 63 bytes.
    format!("{PREFIX}{unique}_{name}").chars().take(63).collect()
}

/// Drops the database of an earlier failed upgrade or rollback, and runs a checkpoint, so that the copy waits less.
/// Does nothing on an external server.
pub async fn prepare(access: &Access) -> Result<(), PgError> {
    if !access.owns_server() {
        return Ok(());
    }
    let upkeep = access.superuser("postgres").await?;
    drop_if_exists(&upkeep, FAILED).await?;
    Ok(upkeep.batch_execute("CHECKPOINT").await?)
}

/// Takes the snapshot `name` of the application's database. The caller has stopped server and agent. On the managed
/// server, terminates the remaining sessions.
pub async fn take(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    if !access.owns_server() {
        return external::take(home, access, name).await;
    }
    let upkeep = access.superuser("postgres").await?;
    drop_if_exists(&upkeep, name).await?;
    let copy_outcome = match block_connections(&upkeep, APPLICATION_DATABASE).await {
        Ok(()) => copy_managed(&upkeep, name).await,
        Err(error) => Err(error),
    };
    let unblock_outcome = allow_connections(&upkeep, APPLICATION_DATABASE).await;
    Ok(copy_outcome.and(unblock_outcome)?)
}

/// Copies the database without blocking or terminating sessions; fails if one is connected.
pub(crate) async fn copy_idle(access: &Access, name: &str) -> Result<(), PgError> {
    match access.owns_server() {
        true => copy_managed(&access.superuser("postgres").await?, name).await,
        false => copy(&access.upkeep().await?, &access.application().database, name, None).await,
    }
}

async fn copy_managed(upkeep: &Client, name: &str) -> Result<(), PgError> {
    copy(upkeep, APPLICATION_DATABASE, name, Some(APPLICATION_ROLE)).await?;
    database_attributes::copy_attributes(upkeep, APPLICATION_DATABASE, name).await
}

/// Drops a snapshot that may be incomplete: terminates a backend that still creates it, and allows connections to the
/// application's database again.
pub async fn discard(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    if !access.owns_server() {
        return external::discard(home, access, name).await;
    }
    let upkeep = access.superuser("postgres").await?;
    cancel_and_drop(&upkeep, name).await?;
    Ok(allow_connections(&upkeep, APPLICATION_DATABASE).await?)
}

/// Terminates the backend that creates the snapshot and drops the result.
async fn cancel_and_drop(upkeep: &Client, name: &str) -> Result<(), PgError> {
    end_all(upkeep, Sessions::Creating(name)).await?;
    drop_if_exists(upkeep, name).await
}

/// Terminates sessions and waits for their end, up to a limit.
async fn end_all(upkeep: &Client, sessions: Sessions<'_>) -> Result<(), PgError> {
    let deadline = tokio::time::Instant::now() + TERMINATE_LIMIT;
    while databases::end_sessions(upkeep, sessions).await? > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Drops a snapshot.
pub async fn remove(home: &Home, access: &Access, name: &str) -> Result<(), ContentError> {
    match access.owns_server() {
        true => Ok(drop_if_exists(&access.superuser("postgres").await?, name).await?),
        false => external::remove(home, access, name).await,
    }
}

/// Databases up to this size in bytes are copied with the strategy `WAL_LOG`. `FILE_COPY` waits for two checkpoints,
/// which compete with all other disk writes: on two busy cores it takes seconds for 8 MB, `WAL_LOG` a tenth of a
/// second.
const WAL_COPY_LIMIT: u64 = 64 * 1024 * 1024;

/// Copies a template that has no connected sessions. `owner` owns the copy, by default the connected role.
async fn copy(upkeep: &Client, template: &str, name: &str, owner: Option<&str>) -> Result<(), PgError> {
    let size = databases::size(upkeep, Some(template)).await?;
    let owner = owner.map(|role| format!("OWNER {role} ")).unwrap_or_default();
    let create =
        |strategy: &str| format!("CREATE DATABASE {name} TEMPLATE {} {owner}STRATEGY {strategy}", quoted(template));
    if size <= WAL_COPY_LIMIT {
        return Ok(upkeep.batch_execute(&create("WAL_LOG")).await?);
    }
    // With `clone` the copy shares blocks if the file system supports that; otherwise the kernel copies them. If it
    // fails, the server copies them.
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

/// Copies an idle database, drops the copy, and returns the duration of the copy.
pub(crate) async fn time_copy(access: &Access, template: &str, name: &str) -> Result<Duration, PgError> {
    let upkeep = access.upkeep().await?;
    drop_if_exists(&upkeep, name).await?;
    let owner = access.owns_server().then_some(APPLICATION_ROLE);
    if owner.is_some() {
        upkeep.batch_execute("CHECKPOINT").await?;
    }
    let begun = Instant::now();
    copy(&upkeep, template, name, owner).await?;
    let duration = begun.elapsed();
    drop_if_exists(&upkeep, name).await?;
    Ok(duration)
}

/// Restores the snapshot and returns true, or returns false if it does not exist. Renames the current database, which
/// `clean_up` drops later. Idempotent.
pub async fn restore(home: &Home, access: &Access, name: &str) -> Result<bool, ContentError> {
    match access.owns_server() {
        true => Ok(restore_managed(access, name).await?),
        false => external::restore(home, access, name).await,
    }
}

async fn restore_managed(access: &Access, name: &str) -> Result<bool, PgError> {
    let mut upkeep = access.superuser("postgres").await?;
    if !databases::exists(&upkeep, name).await? {
        allow_connections(&upkeep, APPLICATION_DATABASE).await?;
        return Ok(false);
    }
    drop_if_exists(&upkeep, FAILED).await?;
    let has_current = databases::exists(&upkeep, APPLICATION_DATABASE).await?;
    if has_current {
        block_connections(&upkeep, APPLICATION_DATABASE).await?;
    }
    let transaction = upkeep.transaction().await?;
    if has_current {
        transaction.batch_execute(&format!("ALTER DATABASE {APPLICATION_DATABASE} RENAME TO {FAILED}")).await?;
    }
    transaction.batch_execute(&format!("ALTER DATABASE {name} RENAME TO {APPLICATION_DATABASE}")).await?;
    transaction.commit().await?;
    allow_connections(&upkeep, APPLICATION_DATABASE).await?;
    Ok(true)
}

/// Drops the database that `restore` has renamed after a failed upgrade or rollback.
pub async fn clean_up(access: &Access) -> Result<(), PgError> {
    if !access.owns_server() {
        return Ok(());
    }
    drop_if_exists(&access.superuser("postgres").await?, FAILED).await
}

/// Forgets the snapshots of a home whose data has moved to another server: deletes snapshot files and clears the
/// history. Snapshot databases stay on the old server.
pub fn forget_all(home: &Home) -> io::Result<()> {
    external::forget_files(home)?;
    history::forget_snapshots(home, None)
}

/// Drops all snapshots except `keep`; on an external server only this home's snapshots.
pub(crate) async fn drop_others(home: &Home, access: &Access, keep: Option<&str>) -> Result<(), ContentError> {
    if !access.owns_server() {
        return external::drop_others(home, access, keep).await;
    }
    let upkeep = access.superuser("postgres").await?;
    let query = "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)";
    for row in upkeep.query(query, &[&PREFIX]).await.map_err(PgError::from)? {
        let name: String = row.get(0);
        if Some(name.as_str()) != keep {
            drop_if_exists(&upkeep, &name).await?;
        }
    }
    Ok(())
}

/// Disallows connections to the database and terminates its sessions.
async fn block_connections(upkeep: &Client, database: &str) -> Result<(), PgError> {
    databases::set_connections(upkeep, database, Connections::Refused).await?;
    // A session that remains makes the next statement fail with a clear error.
    end_all(upkeep, Sessions::In(database)).await
}

/// Allows connections to the database again.
async fn allow_connections(upkeep: &Client, database: &str) -> Result<(), PgError> {
    match databases::exists(upkeep, database).await? {
        true => databases::set_connections(upkeep, database, Connections::Allowed).await,
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_after_the_release() {
        let candidate = semver::Version::parse("0.2.0-rc1").unwrap();
        let (first, second) = (name(&candidate), name(&candidate));
        assert!(first.starts_with(PREFIX) && first.ends_with("_0_2_0_rc1"), "{first}");
        assert_ne!(first, second);
        let long = format!("1.2.3-{}", "a".repeat(99));
        assert_eq!(name(&semver::Version::parse(&long).unwrap()).len(), 63);
    }
}
