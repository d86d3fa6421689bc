//! No files use one another in a circle: each can be read with only those that it uses in mind. What a `mod.rs` shows
//! of its folder counts as the `mod.rs`, whose own files are not among what it uses.

use crate::architecture::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

#[test]
fn no_files_use_one_another_in_a_circle() {
    let texts: BTreeMap<Module, String> = sources().iter().map(|path| read(path)).collect();
    assert!(texts.len() > 200, "{} files", texts.len());
    let uses = uses_of(&texts);
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 1000, "arrows are overlooked");
    let left = circles(uses);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn the_check_itself_finds_a_circle_however_it_is_written() {
    let module = |name: &str| -> Module { name.split("::").map(str::to_owned).collect() };
    let texts = BTreeMap::from([
        (module("a"), "mod one;\nuse super::b::B;".to_owned()),
        (module("a::one"), "use super::{two::{Two, Other}, three as x};".to_owned()),
        (module("a::two"), "fn f() { crate::b::g(); }\n#[cfg(test)]\nmod tests { use crate::c::C; }".to_owned()),
        (module("a::three"), "use std::fs;".to_owned()),
        (module("b"), "use crate::a::one::One;".to_owned()),
        (module("c"), "use crate::b;".to_owned()),
    ]);
    let left = circles(uses_of(&texts));
    assert_eq!(left.keys().cloned().collect::<Vec<_>>(), [module("a::one"), module("a::two"), module("b")]);
}

/// What a file below `src/` is called, and its text.
fn read(path: &Path) -> (Module, String) {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let mut name: Module = below.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    name.pop_if(|last| last == "mod");
    (name, fs::read_to_string(path).unwrap())
}

/// Which files each file names, but for those of its own folder that a `mod.rs` shows to others.
fn uses_of(texts: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let uses = |(module, text): (&Module, &String)| {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let parent = &module[..module.len() - 1];
        let named = paths(code).into_iter().filter_map(|path| resolve(&path, parent, texts));
        (module.clone(), named.filter(|other| !other.starts_with(module)).collect())
    };
    texts.iter().map(uses).collect()
}

/// Every path that begins with `crate` or `super`, those inside braces written out.
fn paths(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    for prefix in ["crate::", "super::"] {
        for (at, _) in code.match_indices(prefix) {
            let before = &code[..at];
            if !before.ends_with(|character| is_word(character) || character == ':') {
                spell_out(&code[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Reads one path, or a list of them in braces; returns what follows it.
fn spell_out<'a>(mut text: &'a str, before: &[String], found: &mut Vec<Module>) -> &'a str {
    let mut path = before.to_vec();
    loop {
        text = text.trim_start();
        if let Some(mut list) = text.strip_prefix('{') {
            loop {
                list = spell_out(list, &path, found).trim_start();
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
    found.push(path);
    // Past `as name`, and past the `*` of everything.
    let end = text.find([',', '}', ';', '\n']).unwrap_or(text.len());
    &text[end..]
}

/// The file that a path leads to.
fn resolve(path: &[String], parent: &[String], texts: &BTreeMap<Module, String>) -> Option<Module> {
    let supers = path.iter().take_while(|word| *word == "super").count();
    let mut full = match path.first()?.as_str() {
        "crate" => path[1..].to_vec(),
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

/// What is left when nothing more can be taken away that uses nothing or is used by nothing.
fn circles(mut uses: BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    loop {
        let before = uses.len();
        let used: BTreeSet<Module> = uses.values().flatten().cloned().collect();
        uses.retain(|module, others| !others.is_empty() && used.contains(module));
        let there: BTreeSet<Module> = uses.keys().cloned().collect();
        uses.values_mut().for_each(|others| others.retain(|other| there.contains(other)));
        if uses.len() == before && uses.values().all(|others| !others.is_empty()) {
            return uses;
        }
    }
}
