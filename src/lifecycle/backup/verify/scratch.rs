//! A database for untrusted content, and the role that loads it. The role owns only this database, cannot create
//! others, and is dropped afterwards, so a dump can act only there and only as that role.

use leoflow_base::sys::random;
use leoflow_postgres::databases::{self, Sessions};
use leoflow_postgres::external::database_check::DATABASE_OPTIONS;
use leoflow_postgres::identifier::quoted;
use leoflow_postgres::{APPLICATION_ROLE, Access, Login, PgError};
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Identifies a restore: its directory, databases and role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreId(String);

impl RestoreId {
    pub fn new() -> Self {
        Self(hex::encode(random::bytes::<4>()))
    }

    /// Parses an id in the format of `new`.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the database that is not current: before an exchange the restored one, afterwards the replaced one.
    pub fn standby_database(&self) -> String {
        format!("{STANDBY}{}", self.0)
    }

    /// Name of the reference database, which only our migrations fill, for comparison.
    fn reference_database(&self) -> String {
        format!("{REFERENCE}{}", self.0)
    }

    /// Name of the role that loads the content.
    fn role(&self) -> String {
        format!("{ROLE}{}", self.0)
    }
}

// Prefixes of names; the id of the restore follows.
const STANDBY: &str = "leoflow_side_";
const REFERENCE: &str = "leoflow_fresh_";
const ROLE: &str = "leoflow_restore_";
/// Maximum size of the temporary files of a session; only superusers can change it.
const TEMPORARY_LIMIT: &str = "2GB";

/// The databases and the role of a restore.
pub struct Scratch {
    pub id: RestoreId,
    pub access: Access,
    /// Password of the role.
    password: String,
    /// Superuser session for maintenance.
    upkeep: Client,
}

impl Scratch {
    /// Creates the role and two databases that it owns.
    pub async fn create(access: &Access, id: RestoreId) -> Result<Self, PgError> {
        let upkeep = access.superuser("postgres").await?;
        let scratch = Self { id, access: access.clone(), password: random::hex_256(), upkeep };
        // Keeps the password of a failing statement out of the log.
        scratch.upkeep.batch_execute("SET log_min_error_statement = panic").await?;
        let role = scratch.id.role();
        let statement = format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 12 PASSWORD '{}'", scratch.password);
        scratch.upkeep.batch_execute(&statement).await?;
        scratch.upkeep.batch_execute(&format!("ALTER ROLE {role} SET temp_file_limit = '{TEMPORARY_LIMIT}'")).await?;
        for database in [scratch.id.standby_database(), scratch.id.reference_database()] {
            scratch
                .upkeep
                .batch_execute(&format!("CREATE DATABASE {database} OWNER {role} TEMPLATE template0"))
                .await?;
        }
        Ok(scratch)
    }

    /// Login for the database that the dump is loaded into.
    pub fn standby_login(&self) -> Login {
        self.login(self.id.standby_database())
    }

    /// Login for the reference database.
    pub fn reference_login(&self) -> Login {
        self.login(self.id.reference_database())
    }

    fn login(&self, database: String) -> Login {
        Login { role: self.id.role(), password: self.password.clone(), database }
    }

    /// Size of the loaded database on disk, in bytes.
    pub async fn size(&self) -> Result<u64, PgError> {
        databases::size(&self.upkeep, Some(&self.id.standby_database())).await
    }

    /// Terminates the role's sessions.
    pub async fn interrupt(&self) -> Result<(), PgError> {
        databases::end_sessions(&self.upkeep, Sessions::Of(&self.id.role())).await.map(drop)
    }

    /// Transfers the verified database to the application's role. No superuser has connected to the database before;
    /// the statements here are fixed and call no function of the dump. Resets database-wide settings, which the schema
    /// comparison does not cover.
    pub async fn transfer_to_application(self) -> Result<RestoreId, PgError> {
        let (role, standby) = (self.id.role(), self.id.standby_database());
        self.interrupt().await?;
        let reset_statements = format!(
            "ALTER DATABASE {standby} RESET ALL; {}; COMMENT ON DATABASE {standby} IS NULL",
            default_attributes(&standby)
        );
        execute_each(&self.upkeep, &reset_statements).await?;
        drop_databases(&self.access, &[self.id.reference_database()]).await?;
        let standby_client = self.access.superuser(&standby).await?;
        execute_each(&standby_client, &format!("REASSIGN OWNED BY {role} TO {APPLICATION_ROLE}; DROP OWNED BY {role}"))
            .await?;
        drop(standby_client);
        let grant_statements = format!(
            "REVOKE ALL ON DATABASE {standby} FROM PUBLIC; REVOKE ALL ON DATABASE {standby} FROM {APPLICATION_ROLE}; \
             GRANT ALL ON DATABASE {standby} TO {APPLICATION_ROLE}; GRANT CONNECT, TEMPORARY ON DATABASE {standby} TO PUBLIC; \
             DROP ROLE {role}"
        );
        execute_each(&self.upkeep, &grant_statements).await?;
        Ok(self.id)
    }
}

/// Executes statements separated by `; ` one by one, because some cannot run in a transaction with others.
async fn execute_each(client: &Client, statements: &str) -> Result<(), PgError> {
    for statement in statements.split("; ") {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// SQL that resets the attributes by which a database's owner could prevent a drop (`IS_TEMPLATE`) or connections.
fn default_attributes(name: &str) -> String {
    let name = quoted(name);
    format!("ALTER DATABASE {name} IS_TEMPLATE false ALLOW_CONNECTIONS true CONNECTION LIMIT -1")
}

/// Drops these databases and returns the first error. Uses a connection for each, because some errors close it.
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
    // -2 marks a database whose DROP was interrupted; ALTER DATABASE would fail.
    if row.get::<_, i32>(0) != -2 {
        upkeep.batch_execute(&default_attributes(name)).await?;
    }
    databases::drop_if_exists(&upkeep, name).await
}

/// Creates the standby database on an external server. Fails if the role may not create databases.
pub async fn create_standby(access: &Access, id: &RestoreId) -> Result<(), PgError> {
    let (upkeep, name) = (access.upkeep().await?, id.standby_database());
    Ok(upkeep.batch_execute(&format!("CREATE DATABASE {name} {DATABASE_OPTIONS}")).await?)
}

/// Drops the standby database if it exists.
pub async fn drop_standby(access: &Access, id: &RestoreId) -> Result<(), PgError> {
    databases::drop_if_exists(&access.upkeep().await?, &id.standby_database()).await
}

/// Drops databases and roles that restores and verifications have left, except the standby databases of `keep`.
pub async fn drop_leftovers(access: &Access, keep: &[RestoreId]) -> Result<(), PgError> {
    let deadline = Instant::now() + LEFTOVERS_TIMEOUT;
    loop {
        end_sessions(access, keep).await?;
        match try_drop_leftovers(access, keep).await {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => tokio::time::sleep(LEFTOVERS_PAUSE).await,
            settled => return settled,
        }
    }
}

/// Time limit for retries while leftovers are in use.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between retries.
const LEFTOVERS_PAUSE: Duration = Duration::from_millis(20);

/// True for an error that a retry can cure: a backend still runs a cancelled statement, such as a CREATE DATABASE that
/// makes the role own a database.
fn is_in_use(error: &PgError) -> bool {
    let PgError::Query(error) = error else { return false };
    [Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST), Some(&SqlState::OBJECT_IN_USE)].contains(&error.code())
}

/// Terminates sessions that work on leftovers, because a statement continues after its client has disconnected.
async fn end_sessions(access: &Access, keep: &[RestoreId]) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let query = "SELECT pid, coalesce(usename::text, ''), CASE WHEN state <> 'idle' THEN query ELSE '' END
                 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let is_active = |role: &str, statement: &str| {
        let is_ddl = ["CREATE ", "ALTER ", "DROP "].iter().any(|word| statement.starts_with(word));
        let names = statement.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        is_leftover(role, ROLE, keep)
            || is_ddl
                && names
                    .into_iter()
                    .any(|name| [STANDBY, REFERENCE, ROLE].iter().any(|prefix| is_leftover(name, prefix, keep)))
    };
    let rows = upkeep.query(query, &[]).await?;
    for row in rows.iter().filter(|row| is_active(row.get(1), row.get(2))) {
        upkeep.query("SELECT pg_terminate_backend($1, 5000)", &[&row.get::<_, i32>(0)]).await?;
    }
    Ok(())
}

/// True if `name` is `prefix` followed by the id of a restore not in `keep`. Reference databases are never kept.
fn is_leftover(name: &str, prefix: &str, keep: &[RestoreId]) -> bool {
    name.strip_prefix(prefix).and_then(RestoreId::parse).is_some_and(|id| prefix == REFERENCE || !keep.contains(&id))
}

/// One attempt of `drop_leftovers`.
async fn try_drop_leftovers(access: &Access, keep: &[RestoreId]) -> Result<(), PgError> {
    let upkeep = access.superuser("postgres").await?;
    let rows = upkeep.query("SELECT datname::text FROM pg_database", &[]).await?;
    let databases: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let leftovers: Vec<String> = databases
        .into_iter()
        .filter(|name| is_leftover(name, STANDBY, keep) || is_leftover(name, REFERENCE, keep))
        .collect();
    let dropped = drop_databases(access, &leftovers).await;
    for row in upkeep.query("SELECT rolname::text FROM pg_roles", &[]).await? {
        let role: String = row.get(0);
        // A role can be dropped only when it owns no database any more.
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
    fn parses_only_generated_ids() {
        let id = RestoreId::new();
        assert_eq!(RestoreId::parse(id.as_str()), Some(id));
        for other in ["", "abc", "0123456g", "ABCDEF01", "0123456789", "../../..", "\"; DROP"] {
            assert_eq!(RestoreId::parse(other), None, "{other}");
        }
    }
}
