//! What belongs to a database as a whole, and is in no copy and no dump of it: settings, grants, a limit on connections.

use super::PgError;
use tokio_postgres::Client;
use tracing::warn;

/// Settings whose value is a list of names, quoted one by one as `pg_db_role_setting` stores it. As one literal it would be one
/// name. They are those with `GUC_LIST_QUOTE`, as PostgreSQL's own `pg_dump` has them in `variable_is_guc_list_quote`.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Gives the database `to` the attributes of `from`; those that `to` has stay unless `from` has them too. `upkeep` may change
/// both. One that PostgreSQL does not take any more is left out, with a warning in the log: it must not keep the data from
/// coming back.
pub async fn carry(upkeep: &Client, from: &str, to: &str) -> Result<(), PgError> {
    let settings = "
        SELECT CASE setrole WHEN 0 THEN '' ELSE format('ROLE %s IN', setrole::regrole) END,
               split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
        WHERE d.datname = $1::text::name";
    for row in upkeep.query(settings, &[&from]).await? {
        let (of_role, name, value): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let value = if LISTS.contains(&name) { list(value) } else { literal(value) };
        let statement = format!("ALTER {of_role} DATABASE {} SET {} TO {value}", identifier(to), setting_name(name));
        apply(upkeep, &statement).await?;
    }
    let others = "
        SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', $2::text, datconnlimit)
        FROM pg_database WHERE datname = $1::text::name AND datconnlimit > -1
        UNION ALL
        SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $2::text)
        FROM pg_database WHERE datname = $1::text::name AND datacl IS NOT NULL
        UNION ALL
        SELECT format('GRANT %s ON DATABASE %I TO %s%s', g.privilege_type, $2::text,
                      CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END,
                      CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_database d, aclexplode(d.datacl) AS g
        WHERE d.datname = $1::text::name";
    for row in upkeep.query(others, &[&from, &to]).await? {
        apply(upkeep, &row.get::<_, String>(0)).await?;
    }
    Ok(())
}

async fn apply(upkeep: &Client, statement: &str) -> Result<(), PgError> {
    match upkeep.batch_execute(statement).await {
        Err(error) if error.as_db_error().is_some() => {
            warn!("a setting of the database is not carried over: {statement}: {error}");
            Ok(())
        }
        done => Ok(done?),
    }
}

/// Each name a literal of its own; an empty list is the empty text.
fn list(value: &str) -> String {
    let names = split(value);
    if names.is_empty() {
        "''".to_owned()
    } else {
        names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
    }
}

/// The names of a list, without their quotes.
fn split(value: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), value.trim());
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        names.push(name);
        rest = after.trim_start().strip_prefix(',').unwrap_or_default().trim_start();
    }
    names
}

/// Up to the closing quote, which stands twice where it is meant; and what is behind it.
fn unquote(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, one)) = characters.next() {
        if one != '"' {
            name.push(one);
        } else if characters.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return (name, &text[at + 1..]);
        }
    }
    (name, "")
}

fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name of two parts is an extension's.
fn setting_name(name: &str) -> String {
    name.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_stays_a_list() {
        for (stored, expected) in [
            ("public, mine", "'public', 'mine'"),
            ("\"$user\", public", "'$user', 'public'"),
            ("\"a, b\"", "'a, b'"),
            ("\"a\"\"b\",c", "'a\"b', 'c'"),
            ("\"\"", "''"),
            ("", "''"),
            ("x;DROP/**/TABLE/**/t", "'x;DROP/**/TABLE/**/t'"),
            ("o'clock", "'o''clock'"),
            ("a\\b", " E'a\\\\b'"),
        ] {
            assert_eq!(list(stored), expected, "{stored}");
        }
        assert_eq!(setting_name("plpgsql.extra_errors"), "\"plpgsql\".\"extra_errors\"");
    }
}
