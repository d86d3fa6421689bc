//! Whether a database on somebody else's server will do, asked before anything is put into it. What lacks is told with
//! the SQL that helps.

use super::claim::{self, Claim};
use super::{Credentials, MAJOR, PgError, relay};
use crate::config::ExternalUrl;
use crate::sys::random;
use tokio_postgres::Client;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub version: String,
    pub major: u32,
    /// A replica, or one that is set so.
    pub is_read_only: bool,
    pub encoding: String,
    /// `builtin`, `icu`, `libc`, and its locale.
    pub locale: String,
    pub is_byte_order: bool,
    pub may_create_tables: bool,
    /// Then an upgrade's copy is one of the server's own making.
    pub may_create_databases: bool,
    /// Of the role and of the database, the lower one; -1 is none.
    pub connection_limit: i32,
    /// What is in the schema that we use.
    pub relations: Vec<String>,
    pub is_leoflows: bool,
    pub claim: Option<Claim>,
}

/// Each is told with what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    #[error("it is PostgreSQL {found}, and this release works with {MAJOR}")]
    OtherMajor { found: String },
    #[error("it is read-only")]
    ReadOnly,
    #[error("its encoding is {0}, not UTF8")]
    Encoding(String),
    #[error("it sorts by the locale {0}, and Leoflow's lists are in the order of bytes")]
    Locale(String),
    #[error("the role {role:?} may not make tables in it")]
    MayNotCreate { role: String },
    #[error("it allows {0} connections, and Leoflow opens up to {CONNECTIONS}")]
    Connections(i32),
    #[error("it is not empty: {0} are in it")]
    NotEmpty(String),
    #[error("the home {path} on {host} uses it, since {since}")]
    InUse { host: String, path: String, since: String },
    #[error("the home {path} on {host} had its data there; it went to {to}")]
    MovedAway { host: String, path: String, to: String },
    #[error("it holds the tables of a Leoflow that no home uses")]
    Nobodys,
}

/// The server's pool, its scheduler, the agent, a backup and a look with psql.
const CONNECTIONS: i32 = 20;
/// How many of the tables that are in the way are named.
const NAMED: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("the datastore {url} cannot be used: {}", lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Lacks { url: String, lacks: Vec<Lack>, remedies: Vec<String> },
}

/// Connects and looks. Changes nothing.
pub async fn look(url: &ExternalUrl) -> Result<Found, RightsError> {
    let client = relay::connect_directly(url).await.map_err(|error| match error {
        PgError::NoDatabase | PgError::WrongPassword => {
            RightsError::Unreachable(explained(&Credentials::from(url.clone()).explain(error), url))
        }
        PgError::Far(reason) => RightsError::Unreachable(reason),
        other => other.into(),
    })?;
    Ok(look_with(&client).await?)
}

fn explained(error: &PgError, url: &ExternalUrl) -> String {
    format!("{error}; an administrator of {} can make both:\n{}", url.address, new_database(url))
}

async fn look_with(client: &Client) -> Result<Found, PgError> {
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
    Ok(Found {
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

/// Whether two URLs lead to one database: a lock of the one is seen in the other. A copy of all of a server, which has
/// its identifiers too, is another.
pub async fn are_the_same(one: &ExternalUrl, other: &ExternalUrl) -> Result<bool, RightsError> {
    let (one, other) = (relay::connect_directly(one).await?, relay::connect_directly(other).await?);
    let key = i64::from_be_bytes(random::bytes());
    one.execute("SELECT pg_advisory_lock($1)", &[&key]).await.map_err(PgError::from)?;
    let row = other.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await.map_err(PgError::from)?;
    Ok(!row.get::<_, bool>(0))
}

/// What a database has to be for the home `home_id` to begin in it, or to go on: `None` is a home that is new.
pub fn lacks(found: &Found, url: &ExternalUrl, home_id: Option<&str>) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let mut lack = |lack| lacks.push(lack);
    if found.major != MAJOR {
        lack(Lack::OtherMajor { found: found.version.clone() });
    }
    if found.is_read_only {
        lack(Lack::ReadOnly);
    }
    if found.encoding != "UTF8" {
        lack(Lack::Encoding(found.encoding.clone()));
    }
    if !found.is_byte_order {
        lack(Lack::Locale(found.locale.clone()));
    }
    if !found.may_create_tables {
        lack(Lack::MayNotCreate { role: url.role.clone() });
    }
    if (0..CONNECTIONS).contains(&found.connection_limit) {
        lack(Lack::Connections(found.connection_limit));
    }
    match &found.claim {
        Some(claim) if home_id == Some(claim.home_id.as_str()) => {}
        Some(Claim { host, path, moved_to: Some(to), .. }) => {
            lack(Lack::MovedAway { host: host.clone(), path: path.clone(), to: to.clone() });
        }
        Some(Claim { host, path, since, .. }) => {
            lack(Lack::InUse { host: host.clone(), path: path.clone(), since: since.clone() });
        }
        None if found.is_leoflows => lack(Lack::Nobodys),
        None if !found.relations.is_empty() => {
            let mut names = found.relations.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            if found.relations.len() > NAMED {
                names.push_str(&format!(" and {} more", found.relations.len() - NAMED));
            }
            lack(Lack::NotEmpty(names));
        }
        None => {}
    }
    lacks
}

/// Looks, and refuses what will not do. Returns what is worth knowing beside that.
pub async fn require(url: &ExternalUrl, home_id: Option<&str>) -> Result<Found, RightsError> {
    let found = look(url).await?;
    let lacks = lacks(&found, url, home_id);
    if lacks.is_empty() {
        return Ok(found);
    }
    let mut remedies: Vec<String> = Vec::new();
    for remedy in lacks.iter().map(|lack| remedy(lack, url)) {
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    Err(RightsError::Lacks { url: url.to_string(), lacks, remedies })
}

fn remedy(lack: &Lack, url: &ExternalUrl) -> String {
    let (role, database) = (quoted(&url.role), quoted(&url.database));
    match lack {
        Lack::OtherMajor { .. } => format!("use a server of PostgreSQL {MAJOR}"),
        Lack::ReadOnly => {
            "use the primary, and: ".to_owned() + &format!("ALTER ROLE {role} RESET default_transaction_read_only;")
        }
        Lack::MayNotCreate { .. } => format!("in that database: GRANT CREATE, USAGE ON SCHEMA public TO {role};"),
        Lack::Connections(_) => {
            format!("ALTER ROLE {role} CONNECTION LIMIT {CONNECTIONS}; ALTER DATABASE {database} CONNECTION LIMIT -1;")
        }
        Lack::Encoding(_) | Lack::Locale(_) | Lack::NotEmpty(_) | Lack::InUse { .. } => {
            format!("give Leoflow a database of its own, as a superuser: {}", create_database("leoflow", &url.role))
        }
        Lack::MovedAway { .. } | Lack::Nobodys => format!(
            "when nobody needs what is in it: DROP DATABASE {database}; {}",
            create_database(&url.database, &url.role)
        ),
    }
}

/// What a database is made with that Leoflow works in.
pub const LIKE_OURS: &str =
    "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'";

fn create_database(database: &str, role: &str) -> String {
    format!("CREATE DATABASE {} OWNER {} {LIKE_OURS};", quoted(database), quoted(role))
}

fn new_database(url: &ExternalUrl) -> String {
    let role = quoted(&url.role);
    format!("  CREATE ROLE {role} LOGIN PASSWORD '…';\n  {}", create_database(&url.database, &url.role))
}

fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Found {
        Found {
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

    fn of(found: &Found, home_id: Option<&str>) -> Vec<Lack> {
        lacks(found, &ExternalUrl::parse("postgres://ada@h/Data").unwrap(), home_id)
    }

    #[test]
    fn each_lack_is_told_with_the_sql_that_helps() {
        assert_eq!(of(&good(), None), []);
        let bad = Found {
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
        let all = of(&bad, None);
        assert_eq!(all.len(), 7, "{all:?}");
        assert_eq!(all[6].to_string(), "it is not empty: a, b, c and 1 more are in it");
        let url = ExternalUrl::parse("postgres://ada@h/Data").unwrap();
        assert_eq!(remedy(&all[4], &url), "in that database: GRANT CREATE, USAGE ON SCHEMA public TO ada;");
        assert!(remedy(&all[5], &url).contains("ALTER DATABASE \"Data\" CONNECTION LIMIT -1"));
        assert!(remedy(&all[6], &url).contains("CREATE DATABASE leoflow OWNER ada"));
    }

    #[test]
    fn a_database_is_one_homes() {
        let claim =
            Claim { home_id: "1".into(), host: "h".into(), path: "/p".into(), since: "then".into(), moved_to: None };
        let taken = Found { is_leoflows: true, relations: vec!["dag".into()], claim: Some(claim.clone()), ..good() };
        assert_eq!(of(&taken, Some("1")), []);
        assert!(matches!(of(&taken, Some("2"))[..], [Lack::InUse { .. }]));
        assert!(matches!(of(&taken, None)[..], [Lack::InUse { .. }]));
        let moved = Found { claim: Some(Claim { moved_to: Some("x".into()), ..claim }), ..taken.clone() };
        assert!(matches!(of(&moved, None)[..], [Lack::MovedAway { .. }]));
        assert!(matches!(of(&Found { claim: None, ..taken }, Some("1"))[..], [Lack::Nobodys]));
    }
}
