//! The licences of everything that is linked into the program, as Cargo and the crates' own files have them.

use super::Outcome;
use leoflow::build_info::TARGET;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Texts that are in every crate are there once, after the crates that have them.
pub fn write(output: &Path) -> Outcome<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET])
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !asked.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&asked.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&asked.stdout).map_err(|error| error.to_string())?;
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    let mut crates: Vec<&Value> = linked(&metadata)?;
    crates.sort_by_key(|package| (text(package, "name"), text(package, "version")));
    for package in crates {
        let name = format!("{} {}", text(package, "name"), text(package, "version"));
        let license = package["license"].as_str().unwrap_or("see its licence file");
        let place = package["repository"].as_str().unwrap_or_default();
        // To a String it cannot fail.
        let _ = writeln!(list, "{name:<40} {license:<40} {place}");
        for found in license_texts(Path::new(&text(package, "manifest_path")))? {
            texts.entry(found).or_default().insert(name.clone());
        }
    }
    let mut whole = format!("Leoflow Lite has parts by others, under these licences.\n\n{list}");
    for (text, names) in texts {
        let names: Vec<String> = names.into_iter().collect();
        let _ = write!(whole, "\n{}\n{}\n\n{}\n", "-".repeat(80), names.join(", "), text.trim());
    }
    fs::write(output, whole).map_err(|error| format!("{}: {error}", output.display()))
}

fn text(package: &Value, field: &str) -> String {
    package[field].as_str().unwrap_or_default().to_owned()
}

/// What the program is linked with, without what only builds or tests it.
fn linked(metadata: &Value) -> Outcome<Vec<&Value>> {
    let array = |value: &'static str| move |of: &Value| of[value].as_array().cloned().unwrap_or_default();
    let nodes: HashMap<String, Value> =
        array("nodes")(&metadata["resolve"]).into_iter().map(|node| (text(&node, "id"), node)).collect();
    let root = metadata["resolve"]["root"].as_str().ok_or("cargo metadata names no root")?;
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(id) = waiting.pop() {
        let Some(node) = nodes.get(&id) else { continue };
        for dependency in array("deps")(node) {
            let is_linked = array("dep_kinds")(&dependency).iter().any(|kind| kind["kind"].is_null());
            let id = text(&dependency, "pkg");
            if is_linked && seen.insert(id.clone()) {
                waiting.push(id);
            }
        }
    }
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    Ok(packages.iter().filter(|package| seen.contains(&text(package, "id"))).collect())
}

/// The files of a crate that say how it may be used.
fn license_texts(manifest: &Path) -> Outcome<Vec<String>> {
    let folder = manifest.parent().unwrap_or(manifest);
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_one = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_one
            && entry.path().is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.push(text.replace("\r\n", "\n"));
        }
    }
    Ok(found)
}
