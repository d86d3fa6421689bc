//! Checks a database on an external server before anything is stored in it. Each unmet requirement comes with SQL that
//! fixes it.

use super::claim::{self, Claim};
use super::relay;
use crate::identifier::readable;
use crate::{Credentials, MAJOR, PgError};
use leoflow_base::config::ExternalUrl;
use leoflow_base::sys::random;
use tokio_postgres::Client;

/// Properties of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseInfo {
    pub version: String,
    pub major: u32,
    /// The server is a replica, or the database is set to read-only.
    pub is_read_only: bool,
    pub encoding: String,
    /// Provider (`builtin`, `icu` or `libc`) and locale.
    pub locale: String,
    /// True if text is sorted by its bytes.
    pub is_byte_order: bool,
    pub may_create_tables: bool,
    /// Required for database copies during upgrades.
    pub may_create_databases: bool,
    /// The lower of the connection limits of role and database; -1 is none.
    pub connection_limit: i32,
    /// Names of the relations in the schema `public`, without those of extensions.
    pub relations: Vec<String>,
    /// True if the database contains tables of Leoflow.
    pub is_leoflows: bool,
    pub claim: Option<Claim>,
}

/// A requirement that the database does not meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnmetRequirement {
    #[error("it is PostgreSQL {version}, this release requires {MAJOR}")]
    OtherMajor { version: String },
    #[error("it is read-only")]
    ReadOnly,
    #[error("its encoding is {0}, not UTF8")]
    Encoding(String),
    #[error("it sorts by the locale {0}, Leoflow requires byte order")]
    Locale(String),
    #[error("the role {role:?} may not create tables in it")]
    MayNotCreate { role: String },
    #[error("it allows {0} connections, Leoflow opens up to {CONNECTIONS}")]
    Connections(i32),
    #[error("it is not empty, it contains {0}")]
    NotEmpty(String),
    #[error("the home {path} on {host} has used it since {since}")]
    InUse { host: String, path: String, since: String },
    #[error("the home {path} on {host} had its data there and moved it to {to}")]
    MovedAway { host: String, path: String, to: String },
    #[error("it contains the tables of an instance that no home uses")]
    Orphaned,
}

/// Maximum number of connections of the server's pool, scheduler, agent, a backup and psql.
const CONNECTIONS: i32 = 20;
/// Maximum number of existing relations named in the message.
const MAX_NAMED: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum DatabaseCheckError {
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("cannot use the datastore {url}: {}", unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unsuitable { url: String, unmet: Vec<UnmetRequirement>, remedies: Vec<String> },
}

/// Connects and reads the properties. Changes nothing.
pub async fn read_info(url: &ExternalUrl) -> Result<DatabaseInfo, DatabaseCheckError> {
    let client = relay::connect_directly(url).await.map_err(|error| match error {
        PgError::NoDatabase | PgError::WrongPassword => {
            DatabaseCheckError::Unreachable(with_instructions(&Credentials::from(url.clone()).explain(error), url))
        }
        PgError::ExternalServer(reason) => DatabaseCheckError::Unreachable(reason),
        other => other.into(),
    })?;
    Ok(read_info_with(&client).await?)
}

/// Adds to an error how an administrator creates role and database.
fn with_instructions(error: &PgError, url: &ExternalUrl) -> String {
    format!("{error}; an administrator of {} can create both:\n{}", url.address, new_database(url))
}

async fn read_info_with(client: &Client) -> Result<DatabaseInfo, PgError> {
    let query = "
        SELECT current_setting('server_version'), current_setting('server_version_num')::int4 / 10000,
               pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
               pg_encoding_to_char(d.encoding)::text,
               CASE d.datlocprovider WHEN 'b' THEN 'builtin ' WHEN 'i' THEN 'icu ' ELSE 'libc ' END
                   || coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', d.datcollate),
               CASE d.datlocprovider WHEN 'b' THEN true WHEN 'c' THEN d.datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8')
                    ELSE false END,
               CASE WHEN to_regnamespace('public') IS NULL THEN false ELSE has_schema_privilege('public', 'CREATE') END,
               r.rolcreatedb OR r.rolsuper,
               least(CASE r.rolconnlimit WHEN -1 THEN 1000000 ELSE r.rolconnlimit END,
                     CASE d.datconnlimit WHEN -1 THEN 1000000 ELSE d.datconnlimit END),
               to_regclass('public.instance_fact') IS NOT NULL,
               ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
                       AND NOT EXISTS (SELECT FROM pg_depend e
                                       WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
                     ORDER BY 1)
        FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = current_user";
    let row = client.query_one(query, &[]).await?;
    let major: i32 = row.get(1);
    let limit: i32 = row.get(8);
    let is_leoflows: bool = row.get(9);
    Ok(DatabaseInfo {
        version: row.get(0),
        major: u32::try_from(major).unwrap_or(0),
        is_read_only: row.get(2),
        encoding: row.get(3),
        locale: row.get(4),
        is_byte_order: row.get(5),
        may_create_tables: row.get(6),
        may_create_databases: row.get(7),
        connection_limit: if limit >= 1_000_000 { -1 } else { limit },
        is_leoflows,
        claim: match is_leoflows {
            true => claim::read_if_allowed(client).await?,
            false => None,
        },
        relations: row.get(10),
    })
}

/// True when two URLs lead to the same database: a lock taken in one is seen in the other. A copy of a whole server,
/// which has the same identifiers, is a different database.
pub async fn are_the_same(first: &ExternalUrl, other: &ExternalUrl) -> Result<bool, DatabaseCheckError> {
    let (first_client, other_client) = (relay::connect_directly(first).await?, relay::connect_directly(other).await?);
    let key = i64::from_be_bytes(random::bytes());
    first_client.execute("SELECT pg_advisory_lock($1)", &[&key]).await.map_err(PgError::from)?;
    let row = other_client.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await.map_err(PgError::from)?;
    Ok(!row.get::<_, bool>(0))
}

/// Lists the requirements that the database does not meet for the home `home_id`, or for a new home if that is `None`.
pub(crate) fn unmet_requirements(
    info: &DatabaseInfo,
    url: &ExternalUrl,
    home_id: Option<&str>,
) -> Vec<UnmetRequirement> {
    let mut all_unmet = Vec::new();
    let mut add = |unmet| all_unmet.push(unmet);
    if info.major != MAJOR {
        add(UnmetRequirement::OtherMajor { version: info.version.clone() });
    }
    if info.is_read_only {
        add(UnmetRequirement::ReadOnly);
    }
    if info.encoding != "UTF8" {
        add(UnmetRequirement::Encoding(info.encoding.clone()));
    }
    if !info.is_byte_order {
        add(UnmetRequirement::Locale(info.locale.clone()));
    }
    if !info.may_create_tables {
        add(UnmetRequirement::MayNotCreate { role: url.role.clone() });
    }
    if (0..CONNECTIONS).contains(&info.connection_limit) {
        add(UnmetRequirement::Connections(info.connection_limit));
    }
    match &info.claim {
        Some(claim) if home_id == Some(claim.home_id.as_str()) => {}
        Some(Claim { host, path, moved_to: Some(to), .. }) => {
            add(UnmetRequirement::MovedAway { host: host.clone(), path: path.clone(), to: to.clone() });
        }
        Some(Claim { host, path, since, .. }) => {
            add(UnmetRequirement::InUse { host: host.clone(), path: path.clone(), since: since.clone() });
        }
        None if info.is_leoflows => add(UnmetRequirement::Orphaned),
        None if !info.relations.is_empty() => {
            let mut names = info.relations.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
            if info.relations.len() > MAX_NAMED {
                names.push_str(&format!(" and {} more", info.relations.len() - MAX_NAMED));
            }
            add(UnmetRequirement::NotEmpty(names));
        }
        None => {}
    }
    all_unmet
}

/// Reads the properties and fails if a requirement is not met.
pub async fn require(url: &ExternalUrl, home_id: Option<&str>) -> Result<DatabaseInfo, DatabaseCheckError> {
    let info = read_info(url).await?;
    let all_unmet = unmet_requirements(&info, url, home_id);
    if all_unmet.is_empty() {
        return Ok(info);
    }
    let mut remedies: Vec<String> = Vec::new();
    for remedy in all_unmet.iter().map(|unmet| remedy(unmet, url)) {
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    Err(DatabaseCheckError::Unsuitable { url: url.to_string(), unmet: all_unmet, remedies })
}

/// How to meet a requirement, as SQL where possible.
fn remedy(unmet: &UnmetRequirement, url: &ExternalUrl) -> String {
    let (role, database) = (readable(&url.role), readable(&url.database));
    match unmet {
        UnmetRequirement::OtherMajor { .. } => format!("use a server of PostgreSQL {MAJOR}"),
        UnmetRequirement::ReadOnly => {
            "use the primary, and: ".to_owned() + &format!("ALTER ROLE {role} RESET default_transaction_read_only;")
        }
        UnmetRequirement::MayNotCreate { .. } => {
            format!("in that database: GRANT CREATE, USAGE ON SCHEMA public TO {role};")
        }
        UnmetRequirement::Connections(_) => {
            format!("ALTER ROLE {role} CONNECTION LIMIT {CONNECTIONS}; ALTER DATABASE {database} CONNECTION LIMIT -1;")
        }
        UnmetRequirement::Encoding(_)
        | UnmetRequirement::Locale(_)
        | UnmetRequirement::NotEmpty(_)
        | UnmetRequirement::InUse { .. } => {
            format!("give Leoflow a database of its own, as a superuser: {}", create_database("leoflow", &url.role))
        }
        UnmetRequirement::MovedAway { .. } | UnmetRequirement::Orphaned => format!(
            "if its contents are not needed: DROP DATABASE {database}; {}",
            create_database(&url.database, &url.role)
        ),
    }
}

/// Options of CREATE DATABASE that Leoflow requires.
pub const DATABASE_OPTIONS: &str =
    "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'";

fn create_database(database: &str, role: &str) -> String {
    format!("CREATE DATABASE {} OWNER {} {DATABASE_OPTIONS};", readable(database), readable(role))
}

fn new_database(url: &ExternalUrl) -> String {
    let role = readable(&url.role);
    format!("  CREATE ROLE {role} LOGIN PASSWORD '…';\n  {}", create_database(&url.database, &url.role))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> DatabaseInfo {
        DatabaseInfo {
            version: format!("{MAJOR}.4"),
            major: MAJOR,
            is_read_only: false,
            encoding: "UTF8".into(),
            locale: "builtin C.UTF-8".into(),
            is_byte_order: true,
            may_create_tables: true,
            may_create_databases: false,
            connection_limit: -1,
            relations: Vec::new(),
            is_leoflows: false,
            claim: None,
        }
    }

    fn unmet_for(info: &DatabaseInfo, home_id: Option<&str>) -> Vec<UnmetRequirement> {
        unmet_requirements(info, &ExternalUrl::parse("postgres://ada@h/Data").unwrap(), home_id)
    }

    #[test]
    fn unmet_requirements_come_with_sql() {
        assert_eq!(unmet_for(&good(), None), []);
        let bad = DatabaseInfo {
            major: 15,
            version: "15.4".into(),
            is_read_only: true,
            encoding: "LATIN1".into(),
            is_byte_order: false,
            may_create_tables: false,
            connection_limit: 5,
            relations: ["a", "b", "c", "d"].map(String::from).to_vec(),
            ..good()
        };
        let unmet = unmet_for(&bad, None);
        assert_eq!(unmet.len(), 7, "{unmet:?}");
        assert_eq!(unmet[6].to_string(), "it is not empty, it contains a, b, c and 1 more");
        let url = ExternalUrl::parse("postgres://ada@h/Data").unwrap();
        assert_eq!(remedy(&unmet[4], &url), "in that database: GRANT CREATE, USAGE ON SCHEMA public TO ada;");
        assert!(remedy(&unmet[5], &url).contains("ALTER DATABASE \"Data\" CONNECTION LIMIT -1"));
        assert!(remedy(&unmet[6], &url).contains("CREATE DATABASE leoflow OWNER ada"));
    }

    #[test]
    fn a_database_belongs_to_one_home() {
        let claim =
            Claim { home_id: "1".into(), host: "h".into(), path: "/p".into(), since: "then".into(), moved_to: None };
        let taken =
            DatabaseInfo { is_leoflows: true, relations: vec!["dag".into()], claim: Some(claim.clone()), ..good() };
        assert_eq!(unmet_for(&taken, Some("1")), []);
        assert!(matches!(unmet_for(&taken, Some("2"))[..], [UnmetRequirement::InUse { .. }]));
        assert!(matches!(unmet_for(&taken, None)[..], [UnmetRequirement::InUse { .. }]));
        let moved = DatabaseInfo { claim: Some(Claim { moved_to: Some("x".into()), ..claim }), ..taken.clone() };
        assert!(matches!(unmet_for(&moved, None)[..], [UnmetRequirement::MovedAway { .. }]));
        assert!(matches!(
            unmet_for(&DatabaseInfo { claim: None, ..taken }, Some("1"))[..],
            [UnmetRequirement::Orphaned]
        ));
    }
}
