//! Attributes of a database that neither a template copy nor a dump carries: settings, grants, connection limit.

use super::PgError;
use super::identifier::quoted;
use tokio_postgres::Client;
use tracing::warn;

/// Settings whose value is a list of names (`GUC_LIST_QUOTE`). Each name must be quoted on its own, because a list in
/// one literal would be a single name. Source: `variable_is_guc_list_quote` of PostgreSQL's `pg_dump`.
const LIST_SETTINGS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Copies the attributes of `from` to `to`; others of `to` stay. `upkeep` must have rights on both. An attribute that
/// PostgreSQL no longer accepts is skipped with a warning in the log, because it must not block a restore.
pub async fn copy_attributes(upkeep: &Client, from: &str, to: &str) -> Result<(), PgError> {
    let settings = "
        SELECT CASE setrole WHEN 0 THEN '' ELSE format('ROLE %s IN', setrole::regrole) END,
               split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
        WHERE d.datname = $1::text::name";
    for row in upkeep.query(settings, &[&from]).await? {
        let (role_clause, name, value): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let value = if LIST_SETTINGS.contains(&name) { quote_list(value) } else { literal(value) };
        let statement = format!("ALTER {role_clause} DATABASE {} SET {} TO {value}", quoted(to), setting_name(name));
        apply(upkeep, &statement).await?;
    }
    let other_attributes = "
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
    for row in upkeep.query(other_attributes, &[&from, &to]).await? {
        apply(upkeep, &row.get::<_, String>(0)).await?;
    }
    Ok(())
}

/// Executes a statement; one that PostgreSQL rejects is skipped with a warning.
async fn apply(upkeep: &Client, statement: &str) -> Result<(), PgError> {
    match upkeep.batch_execute(statement).await {
        Err(error) if error.as_db_error().is_some() => {
            warn!("skipped an attribute of the database: {statement}: {error}");
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

/// Quotes each name; an empty list is an empty string.
fn quote_list(value: &str) -> String {
    let names = split_names(value);
    if names.is_empty() {
        "''".to_owned()
    } else {
        names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
    }
}

/// Splits a list into names without quotes.
fn split_names(value: &str) -> Vec<String> {
    let (mut names, mut remaining) = (Vec::new(), value.trim());
    while !remaining.is_empty() {
        let (name, after) = match remaining.strip_prefix('"') {
            Some(rest) => unquote(rest),
            None => {
                let end = remaining.find(',').unwrap_or(remaining.len());
                (remaining[..end].trim_end().to_owned(), &remaining[end..])
            }
        };
        names.push(name);
        remaining = after.trim_start().strip_prefix(',').unwrap_or_default().trim_start();
    }
    names
}

/// Reads up to the closing quote, where a doubled quote is literal; also returns the text after it.
fn unquote(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        if character != '"' {
            name.push(character);
        } else if characters.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return (name, &text[index + 1..]);
        }
    }
    (name, "")
}

fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

/// Quotes the name of a setting. One with two parts belongs to an extension.
fn setting_name(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
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
            assert_eq!(quote_list(stored), expected, "{stored}");
        }
        assert_eq!(setting_name("plpgsql.extra_errors"), "\"plpgsql\".\"extra_errors\"");
    }
}
