//! Reads lock files of other tools beside a `pyproject.toml` as constraints on versions and hashes.

use super::error::DeclarationError;
use super::project_text::text_of;
use crate::environments::pins;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// File names; the first that exists counts: <https://peps.python.org/pep-0751/>, then those of uv, Poetry and PDM.
const NAMES: [&str; 4] = ["pylock.toml", "uv.lock", "poetry.lock", "pdm.lock"];

/// The constraints of the lock file in the folder of `path`; none without a lock file.
pub fn constraints_beside(path: &Path, read: &mut Vec<PathBuf>) -> Result<Vec<String>, DeclarationError> {
    for name in NAMES {
        let file = path.with_file_name(name);
        if let Some(text) = text_of(&file, read)? {
            return constraints(&text).map_err(|source| DeclarationError::Toml { path: file, source });
        }
    }
    Ok(Vec::new())
}

/// Converts a lock file to constraints. Skips the project itself and packages from git or a folder: the requirements
/// name these.
fn constraints(text: &str) -> Result<Vec<String>, toml::de::Error> {
    let lock: Table = toml::from_str(text)?;
    let packages = lock.get("packages").or_else(|| lock.get("package")).and_then(Value::as_array);
    let mut by_name: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for package in packages.into_iter().flatten() {
        if let Some(name) = package.get("name").and_then(Value::as_str) {
            by_name.entry(name).or_default().push(package);
        }
    }
    let constraints_of_package = |(name, packages): (&str, Vec<&Value>)| -> Vec<String> {
        let versions: BTreeSet<&str> = packages.iter().filter_map(|package| version(package)).collect();
        if versions.len() <= 1 {
            // PDM repeats a package for each set of its extras.
            return constraint(name, &packages, None).into_iter().collect();
        }
        let markers: Option<Vec<String>> = packages.iter().map(|package| marker(package)).collect();
        // Without markers the lock does not say which version is for which Python, so it gives no constraint.
        let with_markers = packages.iter().zip(markers.into_iter().flatten());
        with_markers.filter_map(|(package, marker)| constraint(name, &[*package], Some(&marker))).collect()
    };
    Ok(by_name.into_iter().flat_map(constraints_of_package).collect())
}

fn version(package: &Value) -> Option<&str> {
    package.get("version").and_then(Value::as_str)
}

/// Converts the entries of one version of a package to a constraint. Without a strong hash, it constrains a package
/// from an index to its version only; for any other package it is `None`.
fn constraint(name: &str, packages: &[&Value], marker: Option<&str>) -> Option<String> {
    let version = packages.iter().find_map(|package| version(package))?;
    let mut hashes = Vec::new();
    for (package, part) in
        packages.iter().flat_map(|package| ["wheels", "sdist", "archive", "files"].map(|part| (package, part)))
    {
        collect_hashes(package.get(part), &mut hashes);
    }
    hashes.sort();
    hashes.dedup();
    if hashes.is_empty() && !packages.iter().all(|package| is_from_index(package)) {
        return None;
    }
    let marker = marker.map(|marker| format!(" ; {marker}")).unwrap_or_default();
    let hashes: String = hashes.iter().map(|hash| format!(" --hash={hash}")).collect();
    Some(format!("{name}=={version}{marker}{hashes}"))
}

/// False for a package from git, a folder or an address, and for the project itself.
fn is_from_index(package: &Value) -> bool {
    let other_sources = ["git", "path", "editable", "virtual", "directory", "url", "vcs", "archive", "revision"];
    let source = package.get("source");
    let kind = source.and_then(|source| source.get("type")).and_then(Value::as_str);
    let has_other_source = |table: &Value| other_sources.iter().any(|key| table.get(key).is_some());
    !has_other_source(package) && !source.is_some_and(has_other_source) && matches!(kind, None | Some("legacy"))
}

/// The environment marker of a package: the Pythons and platforms that it is for. `None` without a marker.
fn marker(package: &Value) -> Option<String> {
    let single = ["marker", "markers"].iter().find_map(|key| package.get(key)?.as_str());
    let several = package.get("resolution-markers").and_then(Value::as_array);
    let several = several.map(|all| all.iter().filter_map(Value::as_str).map(|marker| format!("({marker})")));
    single.map(str::to_owned).or_else(|| several.map(|all| all.collect::<Vec<_>>().join(" or ")))
}

/// Collects hashes from `hash = "sha256:…"`, or from a table `hashes` by algorithm.
fn collect_hashes(value: Option<&Value>, found: &mut Vec<String>) {
    match value {
        Some(Value::Array(files)) => files.iter().for_each(|file| collect_hashes(Some(file), found)),
        Some(Value::Table(file)) => {
            let single_hash = file.get("hash").and_then(Value::as_str).map(str::to_owned);
            let by_algorithm = file.get("hashes").and_then(Value::as_table).into_iter().flatten();
            let hashes_by_algorithm =
                by_algorithm.filter_map(|(algorithm, hash)| Some(format!("{algorithm}:{}", hash.as_str()?)));
            // A weak hash does not pin a file.
            found.extend(single_hash.into_iter().chain(hashes_by_algorithm).filter(|hash| pins::is_strong(hash)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11";
    const B: &str = "bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22bb22";
    const C: &str = "cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33cc33";

    #[test]
    fn versions_and_hashes_of_each_kind_become_constraints() {
        let of_uv = format!(
            "[[package]]\nname = 'mine'\nversion = '0.1'\nsource = {{ virtual = '.' }}\n\
             [[package]]\nname = 'n'\nversion = '2.4'\nresolution-markers = [\"python_version < '3.12'\"]\n\
             sdist = {{ url = 'https://i/n', hash = 'sha256:{A}' }}\nwheels = [{{ url = 'https://i/n', hash = 'sha256:{B}' }}]\n\
             [[package]]\nname = 'n'\nversion = '2.5'\nresolution-markers = [\"python_version >= '3.12'\"]\n\
             wheels = [{{ url = 'https://i/n', hash = 'sha256:{C}' }}]\n"
        );
        let expected = [
            format!("n==2.4 ; (python_version < '3.12') --hash=sha256:{A} --hash=sha256:{B}"),
            format!("n==2.5 ; (python_version >= '3.12') --hash=sha256:{C}"),
        ];
        assert_eq!(constraints(&of_uv).unwrap(), expected);
        let expected_single = [format!("n==1 --hash=sha256:{A}")];
        let pylock =
            format!("[[packages]]\nname = 'n'\nversion = '1'\n[[packages.wheels]]\nhashes = {{ sha256 = '{A}' }}\n");
        assert_eq!(constraints(&pylock).unwrap(), expected_single);
        let poetry =
            format!("[[package]]\nname = 'n'\nversion = '1'\nfiles = [{{ file = 'n.whl', hash = 'sha256:{A}' }}]\n");
        assert_eq!(constraints(&poetry).unwrap(), expected_single);
        assert_eq!(constraints("version = 1\n").unwrap(), [""; 0]);
        assert!(constraints("[[package").is_err());
    }

    #[test]
    fn a_repeated_package_has_one_version_or_no_constraint() {
        let package = |version: &str, extra_line: &str, hash: &str| {
            format!(
                "[[package]]\nname = 'n'\nversion = '{version}'\n{extra_line}files = [{{ file = 'n', hash = 'sha256:{hash}' }}]\n"
            )
        };
        let of_pdm = package("1", "", A) + &package("1", "extras = ['x']\n", B);
        assert_eq!(constraints(&of_pdm).unwrap(), [format!("n==1 --hash=sha256:{A} --hash=sha256:{B}")]);
        assert_eq!(constraints(&(package("1", "", A) + &package("2", "", B))).unwrap(), [""; 0]);
    }

    #[test]
    fn weak_hashes_pin_only_the_version() {
        let of_uv = |source: &str, hash: &str| {
            format!(
                "[[package]]\nname = 'n'\nversion = '1'\nsource = {{ {source} }}\nwheels = [{{ url = 'u'{hash} }}]\n"
            )
        };
        assert_eq!(constraints(&of_uv("registry = 'https://i'", ", hash = 'md5:00'")).unwrap(), ["n==1"]);
        assert_eq!(constraints(&of_uv("git = 'https://h/n.git'", "")).unwrap(), [""; 0]);
        let sha512 = "5".repeat(128);
        let table = format!(
            "[[packages]]\nname = 'n'\nversion = '1'\n[[packages.wheels]]\nhashes = {{ sha512 = '{sha512}' }}\n"
        );
        assert_eq!(constraints(&table).unwrap(), [format!("n==1 --hash=sha512:{sha512}")]);
    }
}
