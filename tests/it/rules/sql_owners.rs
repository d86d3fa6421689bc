//! Rules for SQL: the server contains none, only the owners of our tables name them, and only `store/transition`
//! changes states.

use super::architecture::{place_of, sources};
use std::fs;

/// Column names and SQL belong to the store: the server names fields and fills typed filters.
#[test]
fn the_server_contains_no_sql() {
    let sql = [
        "Column",
        "Conditions",
        "SELECT ",
        "EXISTS (",
        " = {}",
        " = ANY",
        " LIKE ",
        " ILIKE ",
        " IS NULL",
        " IS NOT NULL",
        "WHERE ",
        "ORDER BY",
        "coalesce(",
    ];
    // Allowed: the check whether Postgres answers, which reads no table.
    let probe = ("server/state/database.rs", "SELECT ");
    let mut wrong = Vec::new();
    for path in sources() {
        if place_of(&path).0 != "server" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for word in sql {
            if code.contains(word) && !(path.ends_with(probe.0) && word == probe.1) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A statement on one of our tables is in the engine's store or in the crate of the schema. The backup reads tables by
/// the names that it finds in the database.
#[test]
fn only_owners_name_tables_in_sql() {
    let tables = leoflow::schema::tables::tables();
    let owners = ["/src/engine/store/", "/src/postgres/"];
    let mut wrong = Vec::new();
    for path in sources() {
        if owners.iter().any(|owner| path.to_string_lossy().contains(owner)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for line in text.split("#[cfg(test)]\nmod tests").next().unwrap().lines() {
            let named = tables_in(line).into_iter().filter(|table| tables.contains(*table));
            wrong.extend(named.map(|table| format!("{}: {table}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The tables that a line of SQL reads or changes. Queries that a message suggests to the user are not ours.
fn tables_in(line: &str) -> Vec<&str> {
    if line.trim_start().starts_with("//") || line.contains("leoflow ") || line.contains("such as") {
        return Vec::new();
    }
    let keywords = ["FROM ", "JOIN ", "INSERT INTO ", "UPDATE ", "LOCK TABLE "];
    let names = keywords.iter().flat_map(|keyword| line.split(keyword).skip(1)).map(|rest| {
        let name = rest.strip_prefix("public.").unwrap_or(rest);
        name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
    });
    names.collect()
}

#[test]
fn the_check_recognizes_a_statement_on_a_table() {
    assert_eq!(tables_in("let query = \"SELECT 1 FROM public.dag_run r JOIN dag d\";"), ["dag_run", "dag"]);
    assert_eq!(tables_in("    \"UPDATE variable SET key = $1\""), ["variable"]);
    assert_eq!(tables_in("leoflow lite psql -- -c 'SELECT count(*) FROM dag_run'"), [""; 0]);
}

/// The tables whose states only `engine/store/transition` sets.
const TABLES_WITH_STATES: [&str; 2] = ["dag_run", "task_instance"];

#[test]
fn only_transitions_set_states() {
    let mut wrong = Vec::new();
    let mut transitions = 0;
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let statements = state_changes(text.split("#[cfg(test)]\nmod tests").next().unwrap());
        if path.to_string_lossy().contains("/src/engine/store/transition/") {
            transitions += statements.len();
        } else {
            wrong.extend(statements.into_iter().map(|table| format!("{} sets the state of a {table}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(transitions > 10, "the check misses statements: {transitions}");
}

/// Returns the table of each statement in a source that sets the state of a run or an instance.
fn state_changes(code: &str) -> Vec<&'static str> {
    let without_comments: Vec<&str> = code.lines().map(|line| line.split(" -- ").next().unwrap()).collect();
    let code = without_comments.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut changes = Vec::new();
    for table in TABLES_WITH_STATES {
        let (update, insert) = (format!("UPDATE {table} "), format!("INSERT INTO {table} "));
        let updates = code.match_indices(&update).map(|(start, _)| &code[start..]);
        let upserts = code.match_indices(&insert).filter_map(|(start, _)| {
            let statement = code[start..].split('"').next()?;
            statement.find("DO UPDATE SET ").map(|upsert| &statement[upsert..])
        });
        let count = updates.chain(upserts).filter(|statement| sets_state(statement)).count();
        changes.extend(std::iter::repeat_n(table, count));
    }
    changes
}

/// True if the SET clause at the start of a statement assigns the column `state`.
fn sets_state(statement: &str) -> bool {
    let Some((_, rest)) = statement.split_once(" SET ") else { return false };
    let (mut depth, mut assignments) = (0, vec![String::new()]);
    for word in rest.split('"').next().unwrap().split_inclusive([' ', ',', '(', ')']) {
        if depth == 0 && ["FROM ", "WHERE ", "RETURNING "].contains(&word) {
            break;
        }
        let before = depth;
        depth += word.matches('(').count() as i32 - word.matches(')').count() as i32;
        assignments.last_mut().unwrap().push_str(word);
        if before == 0 && word.ends_with(',') {
            assignments.push(String::new());
        }
        if depth < 0 {
            break;
        }
    }
    assignments.iter().any(|assignment| assignment.trim_start().starts_with("state ="))
}

#[test]
fn the_check_recognizes_every_form_of_a_state_change() {
    let one = |sql: &str| state_changes(&format!("let query = \"{sql}\";"));
    assert_eq!(one("UPDATE dag_run SET state = $3 WHERE run_id = $1"), ["dag_run"]);
    assert_eq!(
        one("UPDATE task_instance ti\n  SET due_at = greatest($1, now()), -- a comment\n state = $3"),
        ["task_instance"]
    );
    assert_eq!(
        one("WITH a AS (UPDATE dag_run r SET note = NULL, state = CASE WHEN $1 THEN 'x' END FROM b)"),
        ["dag_run"]
    );
    assert_eq!(
        one("INSERT INTO task_instance (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET state = NULL"),
        ["task_instance"]
    );
    assert_eq!(one("UPDATE task_instance SET note = $1 WHERE state = 'queued'"), [""; 0]);
    assert_eq!(one("UPDATE dag_run SET note = (SELECT x FROM y WHERE state = $1), conf = $2"), [""; 0]);
    assert_eq!(one("UPDATE task_try SET state = 'failed'"), [""; 0]);
}
