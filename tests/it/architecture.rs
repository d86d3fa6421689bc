//! Arrows point down only: a module uses those below it and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. The layers of the design, with siblings in the one order they may use each
/// other in.
const LAYERS: &[&str] = &[
    "build_info",
    "sys",
    "home",
    "protocol",
    "config",
    "postgres",
    "auth",
    "schema",
    "python",
    "web_ui",
    "engine",
    "supervisor",
    "server",
    "agent",
    "backup",
    "setup",
    "upgrade",
    "error",
    "recovery",
    "cli",
    "commands",
    "entry",
    "main",
];

/// The same inside `engine`.
const ENGINE: &[&str] = &[
    "state",
    "keys",
    "schedule",
    "length",
    "param_order",
    "dag",
    "params",
    "dag_check",
    "planner",
    "store",
    "scheduler",
    "mod",
];

/// What bytes go through, one by one: built for size they would cost a multiple.
const HOT: &[&str] = &[
    "blake2",
    "bytes",
    "chacha20",
    "memchr",
    "miniz_oxide",
    "poly1305",
    "postgres-protocol",
    "serde_core",
    "zlib-rs",
    "zstd-safe",
    "zstd-sys",
];

#[test]
fn what_bytes_go_through_is_built_for_speed() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    for profile in ["dev", "release", "dist"] {
        let packages = &manifest["profile"][profile]["package"];
        for name in HOT {
            let level = packages.get(name).and_then(|package| package.get("opt-level")?.as_integer());
            assert!(level >= Some(2), "{name} in the profile {profile}: {level:?}");
        }
    }
}

/// Modules of one layer that must not know each other.
const SIBLINGS: &[&[&str]] = &[&["supervisor", "server", "agent"], &["auth", "schema", "python"], &["backup", "setup"]];

pub fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.to_string_lossy().ends_with("_tests.rs") {
            // A module's tests in a file of their own.
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top module that a file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules that a source names as `crate::x` (or `leoflow::x` in `main.rs`), also inside braces.
fn used(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "leoflow::"] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                found.extend(top_level_items(list).iter().map(|item| first_word(item.trim())));
            } else {
                found.push(first_word(rest));
            }
        }
    }
    found.retain(|name| LAYERS.contains(&name.as_str()));
    found
}

/// The items of a brace list, up to its own closing brace.
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

/// The parts of the engine that a source names as `crate::engine::x`, or, in a file of its own there, as `super::x`.
fn used_of_engine(text: &str, is_at_its_top: bool) -> Vec<String> {
    let prefixes: &[&str] = if is_at_its_top { &["crate::engine::", "super::"] } else { &["crate::engine::"] };
    let mut found: Vec<String> = prefixes
        .iter()
        .flat_map(|prefix| text.match_indices(prefix).map(|(at, _)| first_word(&text[at + prefix.len()..])))
        .collect();
    found.retain(|name| !name.is_empty());
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rank(module: &str) -> usize {
    LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} is in no layer"))
}

#[test]
fn modules_use_only_those_below_them() {
    let mut wrong = Vec::new();
    for path in sources() {
        let own = module_of(&path);
        if own == "lib" {
            continue;
        }
        for other in used(&fs::read_to_string(&path).unwrap()) {
            let sibling =
                SIBLINGS.iter().any(|row| other != own && row.contains(&own.as_str()) && row.contains(&other.as_str()));
            if rank(&other) > rank(&own) || sibling {
                wrong.push(format!("{} uses {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn inside_the_engine_too() {
    let rank = |part: &str| ENGINE.iter().position(|one| *one == part);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    let mut files = Vec::new();
    walk(&folder, &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let relative = path.strip_prefix(&folder).unwrap();
        let is_at_its_top = relative.components().count() == 1;
        let own = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        for other in used_of_engine(&fs::read_to_string(&path).unwrap(), is_at_its_top) {
            match (rank(&other), rank(own)) {
                (Some(other), Some(own)) if other <= own => {}
                _ => wrong.push(format!("{} uses {other}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_sees_every_way_to_write_it() {
    let text =
        "use crate::sys::files;\nuse crate::{home::{self, Home}, config::Config};\nlet x = crate::server::run();";
    assert_eq!(used(text), ["sys", "home", "config", "server"]);
    let text = "use crate::engine::store::runs;\nuse super::dag::Task;";
    assert_eq!(used_of_engine(text, true), ["store", "dag"]);
    assert_eq!(used_of_engine(text, false), ["store"]);
}

#[test]
fn what_only_some_modules_may_do_is_done_there() {
    // What a migrator prints is its log: the supervisor keeps it.
    let logs = ["commands/release/migrate_db.rs"];
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let module = module_of(&path);
        let mut forbid = |word: &str, allowed: bool| {
            if code.contains(word) && !allowed {
                wrong.push(format!("{}: {word}", path.display()));
            }
        };
        let is_log = logs.iter().any(|log| path.ends_with(log));
        forbid("unsafe {", module == "sys");
        forbid("unsafe fn", module == "sys");
        forbid("std::env::var", module == "sys");
        forbid("env::vars", path.ends_with("sys/env_vars.rs"));
        // Both panic where the system refuses a thread.
        forbid("thread::spawn(", path.ends_with("sys/blocking.rs"));
        forbid("spawn_blocking(", path.ends_with("sys/blocking.rs"));
        forbid("println!(", is_log || module == "cli");
        let may_use_sql = module != "server" && module != "agent" || path.ends_with("server/database.rs");
        [".query(", ".query_one(", ".query_opt(", ".execute(", ".batch_execute(", ".query_raw(", "client.prepare("]
            .iter()
            .for_each(|word| forbid(word, may_use_sql));
        forbid("todo!(", false);
        forbid("unimplemented!(", false);
        forbid(".unwrap()", false);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_small_enough_to_have_one_subject() {
    let long: Vec<String> = sources()
        .iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(path).unwrap();
            let code = lines.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
            (code > 400).then(|| format!("{}: {code} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// docs/architecture.md says what each dependency is for.
#[test]
fn every_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let listed = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let direct: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim()).collect();
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let table = page.split("## Dependencies").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once(" | "));
    let named: BTreeSet<&str> =
        rows.flat_map(|(names, _)| names.split(", ").map(|name| name.trim_matches('`'))).collect();
    assert!(direct.len() > 30, "{direct:?}");
    assert_eq!(direct, named);
}
