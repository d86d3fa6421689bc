//! Source files must not import each other in a cycle. A `mod.rs` or `lib.rs` counts as the file that defines the items
//! it re-exports, and its imports from its own folder are ignored. Cargo forbids cycles between crates.

use super::architecture::{CRATES, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

#[test]
fn source_files_have_no_import_cycles() {
    let texts: BTreeMap<Module, String> = sources().iter().map(|path| read(path)).collect();
    assert!(texts.len() > 200, "{} files", texts.len());
    let uses = uses_of(&texts);
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 1000, "the check misses imports");
    let cycles = find_cycles(uses);
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn the_check_finds_every_form_of_a_cycle() {
    let module = |name: &str| -> Module { name.split("::").map(str::to_owned).collect() };
    let texts = BTreeMap::from([
        (module("a"), "mod one;\nuse super::b::B;".to_owned()),
        (module("a::one"), "use super::{two::{Two, Other}, three as x};".to_owned()),
        (module("a::two"), "fn f() { crate::b::g(); }\n#[cfg(test)]\nmod tests { use crate::c::C; }".to_owned()),
        (module("a::three"), "use std::fs;".to_owned()),
        (module("b"), "use crate::a::one::One;".to_owned()),
        (module("c"), "use crate::b;".to_owned()),
    ]);
    let cycles = find_cycles(uses_of(&texts));
    assert_eq!(cycles.keys().cloned().collect::<Vec<_>>(), [module("a::one"), module("a::two"), module("b")]);
}

/// Returns the module name and the text of a file below `src/`.
fn read(path: &Path) -> (Module, String) {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let mut name: Module = relative.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    name.pop_if(|last| last == "mod" || last == "lib");
    (name, fs::read_to_string(path).unwrap())
}

/// Returns the files that each file imports, except those of its own folder where it is a `mod.rs` or `lib.rs`.
fn uses_of(texts: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let uses = |(module, text): (&Module, &String)| {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let named = paths(code).into_iter().filter_map(|path| resolve(&path, module, texts));
        (module.clone(), named.filter(|other| !other.starts_with(module)).collect())
    };
    texts.iter().filter(|(module, _)| !module.is_empty()).map(uses).collect()
}

/// Returns every path that begins with `crate` or `super`, with brace lists expanded.
fn paths(code: &str) -> Vec<Module> {
    let mut paths = Vec::new();
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    for prefix in ["crate::", "super::"] {
        for (start, _) in code.match_indices(prefix) {
            let before = &code[..start];
            // `$crate` in a macro is the path to what the macro's users need, not an import of its own file.
            if !before.ends_with(|character| is_word(character) || matches!(character, ':' | '$')) {
                expand(&code[start..], &[], &mut paths);
            }
        }
    }
    paths
}

/// Adds one path, or the paths of a brace list; returns the text after it.
fn expand<'a>(mut text: &'a str, before: &[String], paths: &mut Vec<Module>) -> &'a str {
    let mut path = before.to_vec();
    loop {
        text = text.trim_start();
        if let Some(mut list) = text.strip_prefix('{') {
            loop {
                list = expand(list, &path, paths).trim_start();
                match list.strip_prefix(',') {
                    Some(rest) => list = rest,
                    None => return list.strip_prefix('}').unwrap_or(list),
                }
            }
        }
        let end = text.find(|character: char| !(character.is_alphanumeric() || character == '_')).unwrap_or(text.len());
        if end > 0 {
            path.push(text[..end].to_owned());
        }
        text = &text[end..];
        match text.strip_prefix("::") {
            Some(rest) => text = rest,
            None => break,
        }
    }
    paths.push(path);
    // Skips `as name` and a glob's `*`.
    let end = text.find([',', '}', ';', '\n']).unwrap_or(text.len());
    &text[end..]
}

/// Returns the file that contains the item at a path used in `module`: the longest prefix of the path that is a file.
fn resolve(path: &[String], module: &[String], texts: &BTreeMap<Module, String>) -> Option<Module> {
    let (parent, crate_name) = match module {
        [first, ..] if CRATES.contains(&first.as_str()) => (&module[..module.len() - 1], &module[..1]),
        _ => (module.get(..module.len().checked_sub(1)?)?, &[][..]),
    };
    let supers = path.iter().take_while(|word| *word == "super").count();
    let mut full = match path.first()?.as_str() {
        "crate" => [crate_name, &path[1..]].concat(),
        _ => [&parent[..parent.len().checked_sub(supers - 1)?], &path[supers..]].concat(),
    };
    while !full.is_empty() {
        if texts.contains_key(&full) {
            return Some(full);
        }
        full.pop();
    }
    None
}

/// Removes files without imports or importers until nothing changes; the remaining files are in cycles or between them.
fn find_cycles(mut uses: BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    loop {
        let before = uses.len();
        let used: BTreeSet<Module> = uses.values().flatten().cloned().collect();
        uses.retain(|module, others| !others.is_empty() && used.contains(module));
        let remaining: BTreeSet<Module> = uses.keys().cloned().collect();
        uses.values_mut().for_each(|others| others.retain(|other| remaining.contains(other)));
        if uses.len() == before && uses.values().all(|others| !others.is_empty()) {
            return uses;
        }
    }
}
