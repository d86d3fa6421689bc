//! Collects the licences of all linked crates from Cargo's metadata and the crates' own files.

use super::Outcome;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes a list of the crates of `target`, then each licence text once with the names of its crates.
pub fn write(target: &str, output: &Path) -> Outcome<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo_output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !cargo_output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&cargo_output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&cargo_output.stdout).map_err(|error| error.to_string())?;
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    let mut crates: Vec<&Value> = linked(&metadata)?;
    crates.sort_by_key(|package| (text(package, "name"), text(package, "version")));
    for package in crates {
        let name = format!("{} {}", text(package, "name"), text(package, "version"));
        let license = package["license"].as_str().unwrap_or("see its licence file");
        let repository = package["repository"].as_str().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(list, "{name:<40} {license:<40} {repository}");
        for license_text in license_texts(Path::new(&text(package, "manifest_path")))? {
            texts.entry(license_text).or_default().insert(name.clone());
        }
    }
    let mut output_text = format!("Leoflow Lite contains third-party software under these licences.\n\n{list}");
    for (text, names) in texts {
        let names: Vec<String> = names.into_iter().collect();
        let _ = write!(output_text, "\n{}\n{}\n\n{}\n", "-".repeat(80), names.join(", "), text.trim());
    }
    fs::write(output, output_text).map_err(|error| format!("{}: {error}", output.display()))
}

fn text(package: &Value, field: &str) -> String {
    package[field].as_str().unwrap_or_default().to_owned()
}

/// Returns the third-party packages that are linked into the program, without build and test dependencies.
fn linked(metadata: &Value) -> Outcome<Vec<&Value>> {
    let array = |value: &'static str| move |object: &Value| object[value].as_array().cloned().unwrap_or_default();
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
    // A package without a source belongs to this repository.
    let is_third_party = |package: &&Value| !package["source"].is_null() && seen.contains(&text(package, "id"));
    Ok(packages.iter().filter(is_third_party).collect())
}

/// The texts of a crate's licence files.
fn license_texts(manifest: &Path) -> Outcome<Vec<String>> {
    let folder = manifest.parent().unwrap_or(manifest);
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_license = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_license
            && entry.path().is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.push(text.replace("\r\n", "\n"));
        }
    }
    Ok(found)
}
