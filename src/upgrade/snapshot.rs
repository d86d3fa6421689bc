//! The database as it was before an upgrade, kept beside it: a copy made while nobody is connected, and two
//! renames in one transaction to come back to it.

use crate::postgres::{APPLICATION_DATABASE, APPLICATION_ROLE, Access, PgError};
use crate::sys::random;
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
    let upkeep = access.superuser("postgres").await?;
    drop_one(&upkeep, FAILED).await?;
    Ok(upkeep.batch_execute("CHECKPOINT").await?)
}

/// Copies the application's database, which nobody uses. What is connected all the same is cut off.
pub async fn take(access: &Access, name: &str) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    drop_one(&upkeep, name).await?;
    let taken = match empty(&upkeep).await {
        Ok(()) => copy_ours(&upkeep, name).await,
        Err(error) => Err(error),
    };
    let opened = open(&upkeep).await;
    taken.and(opened)
}

/// The same, of a database that nobody is connected to, and nobody is kept out of: an error where somebody is.
pub async fn copy_idle(access: &Access, name: &str) -> Result<(), PgError> {
    copy_ours(&access.superuser("postgres").await?, name).await
}

async fn copy_ours(upkeep: &Client, name: &str) -> Result<(), PgError> {
    copy(upkeep, APPLICATION_DATABASE, name).await?;
    carry_attributes(upkeep, name).await
}

/// Gives up one that may be half made: whoever still makes it is ended first. Everybody may connect again.
pub async fn forget(access: &Access, name: &str) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE pid <> pg_backend_pid() AND query LIKE 'CREATE DATABASE ' || $1::text || ' %'";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !upkeep.query(end, &[&name]).await?.is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
    drop_one(&upkeep, name).await?;
    open(&upkeep).await
}

/// Drops one.
pub async fn remove(access: &Access, name: &str) -> Result<(), PgError> {
    drop_one(&access.superuser("postgres").await?, name).await
}

/// Up to this a copy goes through the write-ahead log, bytes. A copy of files waits for two checkpoints, and those
/// for whatever else the machine writes: seconds for a database of 8 MB beside two busy cores, against a tenth of one.
const SMALL: i64 = 64 * 1024 * 1024;

/// A template that nobody is connected to. It becomes the application's.
async fn copy(upkeep: &Client, template: &str, name: &str) -> Result<(), PgError> {
    let size: i64 = upkeep.query_one("SELECT pg_database_size($1::text::name)", &[&template]).await?.get(0);
    let create =
        |way: &str| format!("CREATE DATABASE {name} TEMPLATE {template} OWNER {APPLICATION_ROLE} STRATEGY {way}");
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
    let upkeep = access.superuser("postgres").await?;
    drop_one(&upkeep, name).await?;
    upkeep.batch_execute("CHECKPOINT").await?;
    let begun = Instant::now();
    copy(&upkeep, template, name).await?;
    let took = begun.elapsed();
    drop_one(&upkeep, name).await?;
    Ok(took)
}

/// What is of the database as a whole is not copied with it: settings and grants.
async fn carry_attributes(upkeep: &Client, name: &str) -> Result<(), PgError> {
    let statements = "
        SELECT format('ALTER %s DATABASE %I SET %I TO %L',
                      CASE setrole WHEN 0 THEN '' ELSE format('ROLE %s IN', setrole::regrole) END,
                      $2::text, split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1))
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
        WHERE d.datname = $1::text::name
        UNION ALL
        SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', $2::text, datconnlimit)
        FROM pg_database WHERE datname = $1::text::name AND datconnlimit <> -1
        UNION ALL
        SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $2::text)
        FROM pg_database WHERE datname = $1::text::name AND datacl IS NOT NULL
        UNION ALL
        SELECT format('GRANT %s ON DATABASE %I TO %s%s', g.privilege_type, $2::text,
                      CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END,
                      CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_database d, aclexplode(d.datacl) AS g
        WHERE d.datname = $1::text::name";
    for row in upkeep.query(statements, &[&APPLICATION_DATABASE, &name]).await? {
        upkeep.batch_execute(&row.get::<_, String>(0)).await?;
    }
    Ok(())
}

/// Brings the snapshot back, if it is there: what is in force now is set aside, and dropped by `clean_up`. Whether
/// it was there. Done twice, it does nothing the second time.
pub async fn put_back(access: &Access, name: &str) -> Result<bool, PgError> {
    let mut upkeep = access.superuser("postgres").await?;
    if !exists(&upkeep, name).await? {
        open(&upkeep).await?;
        return Ok(false);
    }
    drop_one(&upkeep, FAILED).await?;
    let has_one = exists(&upkeep, APPLICATION_DATABASE).await?;
    if has_one {
        empty(&upkeep).await?;
    }
    let transaction = upkeep.transaction().await?;
    if has_one {
        transaction.batch_execute(&format!("ALTER DATABASE {APPLICATION_DATABASE} RENAME TO {FAILED}")).await?;
    }
    transaction.batch_execute(&format!("ALTER DATABASE {name} RENAME TO {APPLICATION_DATABASE}")).await?;
    transaction.commit().await?;
    open(&upkeep).await?;
    Ok(true)
}

/// Drops what an upgrade has failed with.
pub async fn clean_up(access: &Access) -> Result<(), PgError> {
    drop_one(&access.superuser("postgres").await?, FAILED).await
}

/// Drops every snapshot but `keep`.
pub async fn drop_others(access: &Access, keep: Option<&str>) -> Result<(), PgError> {
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
    Ok(upkeep.batch_execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await?)
}

/// Lets nobody in, and cuts off who is there.
async fn empty(upkeep: &Client) -> Result<(), PgError> {
    upkeep.batch_execute(&format!("ALTER DATABASE {APPLICATION_DATABASE} ALLOW_CONNECTIONS false")).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // Backends that are ending are still counted.
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1::text::name";
        let left: i64 = upkeep.query_one(cut, &[&APPLICATION_DATABASE]).await?.get(0);
        if left == 0 || tokio::time::Instant::now() >= deadline {
            // One that resists makes the next statement fail, and say so.
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(upkeep: &Client) -> Result<(), PgError> {
    if exists(upkeep, APPLICATION_DATABASE).await? {
        upkeep.batch_execute(&format!("ALTER DATABASE {APPLICATION_DATABASE} ALLOW_CONNECTIONS true")).await?;
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
