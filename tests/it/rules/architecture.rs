//! Architecture rules: a crate and a part of a crate use only lower ones, and some calls are allowed only in some
//! modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates below `src/`, from the bottom up. Cargo lets a crate use only those in its manifest.
pub const CRATES: &[&str] =
    &["base", "components", "postgres", "python", "engine", "processes", "server", "lifecycle", "cli"];

/// The crates whose parts are ordered, with their parts from the bottom up.
const PARTS: &[(&str, &[&str])] = &[
    (
        "base",
        &[
            "counted",
            "airflow_minors",
            "words",
            "docs",
            "build_info",
            "sys",
            "home",
            "protocol",
            "config",
            "auth",
            "lib",
        ],
    ),
    ("components", &["archive", "wheel", "web_ui", "lib"]),
    ("engine", &["schedule", "model", "planner", "store", "scheduler", "lib"]),
    ("processes", &["keeper", "agent", "supervisor", "lib"]),
    (
        "server",
        &[
            "state",
            "http",
            "pages",
            "login",
            "release",
            "environments",
            "dag_code",
            "dag_files",
            "history",
            "notify",
            "app_state",
            "api",
            "lite",
            "telemetry",
            "ui",
            "task",
            "process",
            "lib",
        ],
    ),
    (
        "postgres",
        &[
            "identifier",
            "generic_client",
            "fatal_message",
            "error",
            "connect",
            "locks",
            "location",
            "credentials",
            "databases",
            "database_attributes",
            "instance_fact",
            "install",
            "cluster",
            "external",
            "access",
            "acquire",
            "totals",
            "schema",
            "lib",
        ],
    ),
    (
        "python",
        &[
            "io_error",
            "airflow_keys",
            "passed_variables",
            "wheels",
            "discover",
            "dotenv",
            "no_result",
            "notes",
            "package",
            "roots",
            "scan",
            "support",
            "zygote",
            "environments",
            "interpreter",
            "import_timeout",
            "linked_venv",
            "leftovers",
            "warm",
            "shared_warm",
            "child",
            "children",
            "parse",
            "without_effect",
            "lib",
        ],
    ),
    ("lifecycle", &["backup", "contract", "setup", "upgrade", "operation", "lib"]),
    ("cli", &["error", "api_client", "args", "terminal", "context", "airflow", "commands", "lib"]),
];

/// Parts of a crate that must not use each other.
const SIBLINGS: &[&[&str]] = &[&["supervisor", "agent"], &["backup", "contract", "setup"]];

pub fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.parent().is_some_and(|folder| folder.join("Cargo.toml").exists()) && path.ends_with("build.rs")
            || path.to_string_lossy().ends_with("_tests.rs")
        {
            // Skips build scripts and files with only tests.
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the crate and the part of it that a file belongs to; the crate of the program itself has no name.
pub fn place_of(path: &Path) -> (String, String) {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let mut words = relative.iter().map(|word| word.to_str().unwrap().trim_end_matches(".rs").to_owned());
    match (words.next().unwrap(), words.next()) {
        (crate_name, Some(part)) => (crate_name, part),
        (file, None) => (String::new(), file),
    }
}

/// Returns the parts of its own crate that a source uses as `crate::x`, also inside braces, or as `super::x` in a file
/// directly in the crate's folder.
fn used_parts(text: &str, is_in_crate_folder: bool) -> Vec<String> {
    let prefixes: &[&str] = if is_in_crate_folder { &["crate::", "super::"] } else { &["crate::"] };
    let mut parts = Vec::new();
    for prefix in prefixes {
        for (start, _) in text.match_indices(prefix) {
            let rest = &text[start + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => parts.extend(top_level_items(list).iter().map(|item| first_word(item.trim()))),
                None => parts.push(first_word(rest)),
            }
        }
    }
    parts.retain(|name| name.starts_with(|letter: char| letter.is_lowercase()));
    parts
}

/// Splits a brace list at its top-level commas, up to its closing brace.
fn top_level_items(list: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for character in list.chars() {
        match character {
            '}' if depth == 0 => break,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        items.last_mut().unwrap().push(character);
    }
    items
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn parts_of_a_crate_use_only_lower_ones() {
    let mut wrong = Vec::new();
    for path in sources() {
        let (crate_name, own) = place_of(&path);
        let Some((_, parts)) = PARTS.iter().find(|(name, _)| *name == crate_name) else { continue };
        let rank = |part: &str| parts.iter().position(|name| *name == part);
        let own_rank = rank(&own).unwrap_or_else(|| panic!("{} has no place in the order", path.display()));
        let is_in_crate_folder = path.parent().unwrap().ends_with(format!("src/{crate_name}"));
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for other in used_parts(code, is_in_crate_folder && own != "lib") {
            let sibling =
                SIBLINGS.iter().any(|row| other != own && row.contains(&own.as_str()) && row.contains(&other.as_str()));
            if sibling || rank(&other).is_some_and(|rank| rank > own_rank) {
                wrong.push(format!("{} uses {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_recognizes_every_form_of_use() {
    let text =
        "use crate::sys::files;\nuse crate::{home::{self, Home}, config::Config};\nlet x = crate::server::run();";
    assert_eq!(used_parts(text, false), ["sys", "home", "config", "server"]);
    let text = "use crate::store::runs;\nuse super::dag::Task;";
    assert_eq!(used_parts(text, true), ["store", "dag"]);
    assert_eq!(used_parts(text, false), ["store"]);
}

/// Every folder of `src/` must be in [`CRATES`], and a crate may depend only on crates before it.
#[test]
fn crates_use_only_lower_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort_by_key(|name| CRATES.iter().position(|known| known == name));
    assert_eq!(found, CRATES);
    for (rank, name) in CRATES.iter().enumerate() {
        let manifest = fs::read_to_string(folder.join(name).join("Cargo.toml")).unwrap();
        for higher in &CRATES[rank..] {
            assert!(!manifest.contains(&format!("leoflow-{higher}.workspace")), "{name} uses {higher}");
        }
    }
}

#[test]
fn restricted_calls_stay_in_their_modules() {
    // The migrator's output is its log, which the supervisor keeps.
    let logs = ["commands/release/migrate_db.rs"];
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let (crate_name, part) = place_of(&path);
        let is_sys = (crate_name.as_str(), part.as_str()) == ("base", "sys");
        let mut forbid = |word: &str, is_allowed: bool| {
            if code.contains(word) && !is_allowed {
                wrong.push(format!("{}: {word}", path.display()));
            }
        };
        let is_log = logs.iter().any(|log| path.ends_with(log));
        forbid("unsafe {", is_sys);
        forbid("unsafe fn", is_sys);
        forbid("target_os", is_sys);
        forbid("std::env::var", is_sys);
        forbid("env::vars", path.ends_with("sys/env_vars.rs"));
        // These functions panic if the system cannot start a thread.
        forbid("thread::spawn(", path.ends_with("sys/blocking.rs"));
        forbid("scope.spawn(", false);
        forbid("spawn_blocking(", path.ends_with("sys/blocking.rs"));
        forbid("println!(", is_log || (crate_name.as_str(), part.as_str()) == ("cli", "terminal"));
        let is_scheduler = (crate_name.as_str(), part.as_str()) == ("engine", "scheduler");
        let may_use_sql =
            crate_name != "server" && part != "agent" && !is_scheduler || path.ends_with("server/state/database.rs");
        [".query(", ".query_one(", ".query_opt(", ".execute(", ".batch_execute(", ".query_raw(", "client.prepare("]
            .iter()
            .for_each(|word| forbid(word, may_use_sql));
        // The store hands typed rows to the scheduler.
        ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "tokio_postgres::Row", "tokio_postgres::types"]
            .iter()
            .for_each(|word| forbid(word, !is_scheduler));
        forbid("todo!(", false);
        forbid("unimplemented!(", false);
        forbid(".unwrap()", false);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn source_files_have_at_most_500_lines_without_tests() {
    let long: Vec<String> = sources()
        .iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(path).unwrap();
            let code = lines.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
            (code > 500).then(|| format!("{}: {code} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// docs/explanation/architecture.md must list each direct dependency with its purpose.
#[test]
fn every_dependency_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let listed = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("# Only for tests.").next().unwrap();
    let direct: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.starts_with("leoflow-"))
        .collect();
    let page = fs::read_to_string(root.join("docs/explanation/architecture.md")).unwrap();
    let table = page.split("## Dependencies").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once(" | "));
    let named: BTreeSet<&str> =
        rows.flat_map(|(names, _)| names.split(", ").map(|name| name.trim_matches('`'))).collect();
    assert!(direct.len() > 30, "{direct:?}");
    assert_eq!(direct, named);
}
