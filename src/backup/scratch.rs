//! A database for content that is not trusted yet, and the role that it is loaded as. The role owns
//! this one database and nothing else, may make no other, and is gone afterwards: whatever a dump
//! does, it does there and as nobody.

use super::survey::quoted;
use crate::postgres::rights::LIKE_OURS;
use crate::postgres::{APPLICATION_ROLE, Access, Login, PgError};
use crate::sys::random;
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Names a restore: its folder, its databases and its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreId(String);

impl RestoreId {
    pub fn new() -> Self {
        Self(hex::encode(random::bytes::<4>()))
    }

    /// Of a name that `new` has made.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The database that is not in force: first what is being restored, then what was replaced.
    pub fn side_database(&self) -> String {
        format!("{SIDE}{}", self.0)
    }

    /// One that our own migrations have made from nothing, to compare with.
    fn fresh_database(&self) -> String {
        format!("{FRESH}{}", self.0)
    }

    fn role(&self) -> String {
        format!("{ROLE}{}", self.0)
    }
}

const SIDE: &str = "leoflow_side_";
const FRESH: &str = "leoflow_fresh_";
const ROLE: &str = "leoflow_restore_";
/// What a single query may put into temporary files. Not the role's to change.
const TEMPORARY_LIMIT: &str = "2GB";

/// The databases and the role of one restore.
pub struct Scratch {
    pub id: RestoreId,
    pub access: Access,
    password: String,
    upkeep: Client,
}

impl Scratch {
    pub async fn create(access: &Access, id: RestoreId) -> Result<Self, PgError> {
        let upkeep = access.superuser("postgres").await?;
        let scratch = Self { id, access: access.clone(), password: random::hex_256(), upkeep };
        // The password must not get into the log when a statement fails.
        scratch.upkeep.batch_execute("SET log_min_error_statement = panic").await?;
        let role = scratch.id.role();
        let statement = format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 12 PASSWORD '{}'", scratch.password);
        scratch.upkeep.batch_execute(&statement).await?;
        scratch.upkeep.batch_execute(&format!("ALTER ROLE {role} SET temp_file_limit = '{TEMPORARY_LIMIT}'")).await?;
        for database in [scratch.id.side_database(), scratch.id.fresh_database()] {
            scratch
                .upkeep
                .batch_execute(&format!("CREATE DATABASE {database} OWNER {role} TEMPLATE template0"))
                .await?;
        }
        Ok(scratch)
    }

    /// The database that a dump goes into.
    pub fn side(&self) -> Login {
        self.login(self.id.side_database())
    }

    pub fn fresh(&self) -> Login {
        self.login(self.id.fresh_database())
    }

    fn login(&self, database: String) -> Login {
        Login { role: self.id.role(), password: self.password.clone(), database }
    }

    /// What the loaded database takes on the disk by now, in bytes.
    pub async fn size(&self) -> Result<u64, PgError> {
        let row = self.upkeep.query_one("SELECT pg_database_size($1::text::name)", &[&self.id.side_database()]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// Ends whatever the role is doing.
    pub async fn interrupt(&self) -> Result<(), PgError> {
        let query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1::text::name";
        self.upkeep.execute(query, &[&self.id.role()]).await?;
        Ok(())
    }

    /// Gives the loaded database, found to be ours, to the application's role. The first time that the
    /// superuser is connected to it; what is run there is fixed and calls nothing. Whatever its owner
    /// could set for the database as a whole, which no comparison of tables sees, is set back.
    pub async fn adopt(self) -> Result<RestoreId, PgError> {
        let (role, side) = (self.id.role(), self.id.side_database());
        self.interrupt().await?;
        let as_new = format!(
            "ALTER DATABASE {side} RESET ALL; {}; COMMENT ON DATABASE {side} IS NULL",
            attributes_as_new(&side)
        );
        execute_each(&self.upkeep, &as_new).await?;
        drop_databases(&self.access, &[self.id.fresh_database()]).await?;
        let inside = self.access.superuser(&side).await?;
        execute_each(&inside, &format!("REASSIGN OWNED BY {role} TO {APPLICATION_ROLE}; DROP OWNED BY {role}")).await?;
        drop(inside);
        let acl = format!(
            "REVOKE ALL ON DATABASE {side} FROM PUBLIC; REVOKE ALL ON DATABASE {side} FROM {APPLICATION_ROLE}; \
             GRANT ALL ON DATABASE {side} TO {APPLICATION_ROLE}; GRANT CONNECT, TEMPORARY ON DATABASE {side} TO PUBLIC; \
             DROP ROLE {role}"
        );
        execute_each(&self.upkeep, &acl).await?;
        Ok(self.id)
    }
}

/// Some of these cannot be in one transaction with others.
async fn execute_each(client: &Client, statements: &str) -> Result<(), PgError> {
    for statement in statements.split("; ") {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// A template cannot be dropped, and one that nobody may connect to cannot be looked at.
fn attributes_as_new(name: &str) -> String {
    let name = quoted(name);
    format!("ALTER DATABASE {name} IS_TEMPLATE false ALLOW_CONNECTIONS true CONNECTION LIMIT -1")
}

/// One that resists is no reason to leave the others; the first error is told at the end. A connection
/// for each: some errors end it.
async fn drop_databases(access: &Access, names: &[String]) -> Result<(), PgError> {
    let mut outcome = Ok(());
    for name in names {
        outcome = outcome.and(drop_database(access, name).await);
    }
    outcome
}

async fn drop_database(access: &Access, name: &String) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let query = "SELECT datconnlimit FROM pg_database WHERE datname = $1::text::name";
    let Some(row) = upkeep.query_opt(query, &[name]).await? else { return Ok(()) };
    // -2 marks one whose dropping was cut off: it can be dropped, and nothing else.
    if row.get::<_, i32>(0) != -2 {
        upkeep.batch_execute(&attributes_as_new(name)).await?;
    }
    Ok(upkeep.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", quoted(name))).await?)
}

/// Makes the database of one on somebody else's server, where the role may.
pub async fn create_side(access: &Access, id: &RestoreId) -> Result<(), PgError> {
    let (upkeep, name) = (access.upkeep().await?, id.side_database());
    Ok(upkeep.batch_execute(&format!("CREATE DATABASE {name} {LIKE_OURS}")).await?)
}

/// Drops it again.
pub async fn drop_side(access: &Access, id: &RestoreId) -> Result<(), PgError> {
    let (upkeep, name) = (access.upkeep().await?, id.side_database());
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text::name)";
    if upkeep.query_one(exists, &[&name]).await?.get(0) {
        upkeep.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
    }
    Ok(())
}

/// Removes what restores and verifications that were killed have left. `keep` is the one whose
/// database is still wanted.
pub async fn drop_strays(access: &Access, keep: &[RestoreId]) -> Result<(), PgError> {
    let deadline = Instant::now() + STRAYS_PATIENCE;
    loop {
        end_sessions(access, keep).await?;
        match try_drop_strays(access, keep).await {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => tokio::time::sleep(STRAYS_PAUSE).await,
            settled => return settled,
        }
    }
}

const STRAYS_PATIENCE: Duration = Duration::from_secs(10);
const STRAYS_PAUSE: Duration = Duration::from_millis(20);

/// Whether something that was given up goes on in a backend: a role owns what it is only just creating.
fn is_in_use(error: &PgError) -> bool {
    let PgError::Query(error) = error else { return false };
    [Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST), Some(&SqlState::OBJECT_IN_USE)].contains(&error.code())
}

/// Ends what is still at work on strays: a client that has left does not end its statement.
async fn end_sessions(access: &Access, keep: &[RestoreId]) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let query = "SELECT pid, coalesce(usename::text, ''), CASE WHEN state <> 'idle' THEN query ELSE '' END
                 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let is_at_work = |role: &str, statement: &str| {
        let makes = ["CREATE ", "ALTER ", "DROP "].iter().any(|word| statement.starts_with(word));
        let named = statement.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        is_stray(role, ROLE, keep)
            || makes
                && named.into_iter().any(|name| [SIDE, FRESH, ROLE].iter().any(|prefix| is_stray(name, prefix, keep)))
    };
    let rows = upkeep.query(query, &[]).await?;
    for row in rows.iter().filter(|row| is_at_work(row.get(1), row.get(2))) {
        upkeep.query("SELECT pg_terminate_backend($1, 5000)", &[&row.get::<_, i32>(0)]).await?;
    }
    Ok(())
}

fn is_stray(name: &str, prefix: &str, keep: &[RestoreId]) -> bool {
    name.strip_prefix(prefix).and_then(RestoreId::parse).is_some_and(|id| prefix == FRESH || !keep.contains(&id))
}

async fn try_drop_strays(access: &Access, keep: &[RestoreId]) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let rows = upkeep.query("SELECT datname::text FROM pg_database", &[]).await?;
    let databases: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let strays: Vec<String> =
        databases.into_iter().filter(|name| is_stray(name, SIDE, keep) || is_stray(name, FRESH, keep)).collect();
    let dropped = drop_databases(access, &strays).await;
    for row in upkeep.query("SELECT rolname::text FROM pg_roles", &[]).await? {
        let role: String = row.get(0);
        // A role that has given its database away owns nothing; one that has not lost it just now.
        if role.strip_prefix(ROLE).is_some_and(|id| RestoreId::parse(id).is_some()) && dropped.is_ok() {
            upkeep.batch_execute(&format!("DROP ROLE IF EXISTS {}", quoted(&role))).await?;
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_ids() {
        let id = RestoreId::new();
        assert_eq!(RestoreId::parse(id.as_str()), Some(id));
        for other in ["", "abc", "0123456g", "ABCDEF01", "0123456789", "../../..", "\"; DROP"] {
            assert_eq!(RestoreId::parse(other), None, "{other}");
        }
    }
}
