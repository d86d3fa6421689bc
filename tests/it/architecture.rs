//! Architecture rules: a module uses only lower modules, and some calls are restricted to some modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of the design from the bottom up; siblings are in the order in which they may use each other.
const LAYERS: &[&str] = &[
    "build_info",
    "docs",
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

/// The parts of `engine` from the bottom up.
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

/// Crates that process every byte; optimized for size they would be several times slower.
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
fn per_byte_crates_are_optimized_for_speed() {
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

/// Modules of one layer that must not use each other.
const SIBLINGS: &[&[&str]] = &[&["supervisor", "server", "agent"], &["auth", "schema", "python"], &["backup", "setup"]];

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
        } else if path.to_string_lossy().ends_with("_tests.rs") {
            // Skips files with only a module's tests.
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the top module of a file.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the modules that a source names as `crate::x` (or `leoflow::x` in `main.rs`), also inside braces.
fn used(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for prefix in ["crate::", "leoflow::"] {
        for (start, _) in text.match_indices(prefix) {
            let rest = &text[start + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                modules.extend(top_level_items(list).iter().map(|item| first_word(item.trim())));
            } else {
                modules.push(first_word(rest));
            }
        }
    }
    modules.retain(|name| LAYERS.contains(&name.as_str()));
    modules
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

/// Returns the parts of the engine that a source names as `crate::engine::x`, or as `super::x` in a file directly in
/// `engine`.
fn used_of_engine(text: &str, is_at_its_top: bool) -> Vec<String> {
    let prefixes: &[&str] = if is_at_its_top { &["crate::engine::", "super::"] } else { &["crate::engine::"] };
    let mut parts: Vec<String> = prefixes
        .iter()
        .flat_map(|prefix| text.match_indices(prefix).map(|(start, _)| first_word(&text[start + prefix.len()..])))
        .collect();
    parts.retain(|name| !name.is_empty());
    parts
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rank(module: &str) -> usize {
    LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} is in no layer"))
}

#[test]
fn modules_use_only_lower_modules() {
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
fn engine_modules_use_only_lower_ones() {
    let rank = |part: &str| ENGINE.iter().position(|name| *name == part);
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
fn the_check_recognizes_every_form_of_use() {
    let text =
        "use crate::sys::files;\nuse crate::{home::{self, Home}, config::Config};\nlet x = crate::server::run();";
    assert_eq!(used(text), ["sys", "home", "config", "server"]);
    let text = "use crate::engine::store::runs;\nuse super::dag::Task;";
    assert_eq!(used_of_engine(text, true), ["store", "dag"]);
    assert_eq!(used_of_engine(text, false), ["store"]);
}

#[test]
fn restricted_calls_stay_in_their_modules() {
    // The migrator's output is its log, which the supervisor keeps.
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
        // Both panic if the system refuses a thread.
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
fn source_files_stay_below_400_lines() {
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

/// docs/explanation/architecture.md must list each direct dependency with its purpose.
#[test]
fn every_dependency_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let listed = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let direct: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim()).collect();
    let page = fs::read_to_string(root.join("docs/explanation/architecture.md")).unwrap();
    let table = page.split("## Dependencies").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once(" | "));
    let named: BTreeSet<&str> =
        rows.flat_map(|(names, _)| names.split(", ").map(|name| name.trim_matches('`'))).collect();
    assert!(direct.len() > 30, "{direct:?}");
    assert_eq!(direct, named);
}
