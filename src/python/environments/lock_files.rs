//! Lock files of other tools beside a `pyproject.toml`: their versions and hashes limit what is installed.

use super::pins;
use super::project_text::text_of;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The first that is there counts. <https://peps.python.org/pep-0751/>, and those of uv, Poetry and PDM.
const NAMES: [&str; 4] = ["pylock.toml", "uv.lock", "poetry.lock", "pdm.lock"];

/// The constraints of the lock file beside this file, none where there is no lock file.
pub fn beside(path: &Path, read: &mut Vec<PathBuf>) -> Result<Vec<String>, String> {
    for name in NAMES {
        let file = path.with_file_name(name);
        if let Some(text) = text_of(&file, read)? {
            return constraints(&text).map_err(|error| format!("{}: {error}", file.display()));
        }
    }
    Ok(Vec::new())
}

/// Packages of git, of a folder and of the project itself are left to the requirements.
fn constraints(text: &str) -> Result<Vec<String>, toml::de::Error> {
    let lock: Table = toml::from_str(text)?;
    let packages = lock.get("packages").or_else(|| lock.get("package")).and_then(Value::as_array);
    let mut by_name: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for package in packages.into_iter().flatten() {
        if let Some(name) = package.get("name").and_then(Value::as_str) {
            by_name.entry(name).or_default().push(package);
        }
    }
    let of_name = |(name, packages): (&str, Vec<&Value>)| -> Vec<String> {
        let versions: BTreeSet<&str> = packages.iter().filter_map(|package| version(package)).collect();
        if versions.len() <= 1 {
            // PDM repeats a package for each set of its extras.
            return constraint(name, &packages, None).into_iter().collect();
        }
        let markers: Option<Vec<String>> = packages.iter().map(|package| marker(package)).collect();
        // Without markers the lock does not say which version is for whom: the requirements decide.
        let with_markers = packages.iter().zip(markers.into_iter().flatten());
        with_markers.filter_map(|(package, marker)| constraint(name, &[*package], Some(&marker))).collect()
    };
    Ok(by_name.into_iter().flat_map(of_name).collect())
}

fn version(package: &Value) -> Option<&str> {
    package.get("version").and_then(Value::as_str)
}

/// Entries of one version. Without a hash that pins a file, the version alone counts, for packages of an index.
fn constraint(name: &str, packages: &[&Value], marker: Option<&str>) -> Option<String> {
    let version = packages.iter().find_map(|package| version(package))?;
    let mut hashes = Vec::new();
    for (package, part) in
        packages.iter().flat_map(|one| ["wheels", "sdist", "archive", "files"].map(|part| (one, part)))
    {
        collect_hashes(package.get(part), &mut hashes);
    }
    hashes.sort();
    hashes.dedup();
    if hashes.is_empty() && !packages.iter().all(|package| is_of_index(package)) {
        return None;
    }
    let marker = marker.map(|marker| format!(" ; {marker}")).unwrap_or_default();
    let hashes: String = hashes.iter().map(|hash| format!(" --hash={hash}")).collect();
    Some(format!("{name}=={version}{marker}{hashes}"))
}

/// False for a package of git, of a folder, or the project itself.
fn is_of_index(package: &Value) -> bool {
    let elsewhere = ["git", "path", "editable", "virtual", "directory", "url", "vcs", "archive", "revision"];
    let source = package.get("source");
    let kind = source.and_then(|source| source.get("type")).and_then(Value::as_str);
    let is_elsewhere = |place: &Value| elsewhere.iter().any(|key| place.get(key).is_some());
    !is_elsewhere(package) && !source.is_some_and(is_elsewhere) && matches!(kind, None | Some("legacy"))
}

/// Of several versions of a package, the Pythons and platforms that this one is for.
fn marker(package: &Value) -> Option<String> {
    let one = ["marker", "markers"].iter().find_map(|key| package.get(key)?.as_str());
    let several = package.get("resolution-markers").and_then(Value::as_array);
    let several = several.map(|all| all.iter().filter_map(Value::as_str).map(|one| format!("({one})")));
    one.map(str::to_owned).or_else(|| several.map(|all| all.collect::<Vec<_>>().join(" or ")))
}

/// `hash = "sha256:…"`, or a table `hashes` of them by algorithm.
fn collect_hashes(value: Option<&Value>, found: &mut Vec<String>) {
    match value {
        Some(Value::Array(files)) => files.iter().for_each(|file| collect_hashes(Some(file), found)),
        Some(Value::Table(file)) => {
            let of_file = file.get("hash").and_then(Value::as_str).map(str::to_owned);
            let by_algorithm = file.get("hashes").and_then(Value::as_table).into_iter().flatten();
            let of_table = by_algorithm.filter_map(|(algorithm, hash)| Some(format!("{algorithm}:{}", hash.as_str()?)));
            // A weak hash pins no file.
            found.extend(of_file.into_iter().chain(of_table).filter(|hash| pins::is_strong(hash)));
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
        let alone = [format!("n==1 --hash=sha256:{A}")];
        let pylock =
            format!("[[packages]]\nname = 'n'\nversion = '1'\n[[packages.wheels]]\nhashes = {{ sha256 = '{A}' }}\n");
        assert_eq!(constraints(&pylock).unwrap(), alone);
        let poetry =
            format!("[[package]]\nname = 'n'\nversion = '1'\nfiles = [{{ file = 'n.whl', hash = 'sha256:{A}' }}]\n");
        assert_eq!(constraints(&poetry).unwrap(), alone);
        assert_eq!(constraints("version = 1\n").unwrap(), [""; 0]);
        assert!(constraints("[[package").is_err());
    }

    #[test]
    fn a_package_named_twice_has_one_version_or_no_constraint() {
        let package = |version: &str, more: &str, hash: &str| {
            format!(
                "[[package]]\nname = 'n'\nversion = '{version}'\n{more}files = [{{ file = 'n', hash = 'sha256:{hash}' }}]\n"
            )
        };
        let of_pdm = package("1", "", A) + &package("1", "extras = ['x']\n", B);
        assert_eq!(constraints(&of_pdm).unwrap(), [format!("n==1 --hash=sha256:{A} --hash=sha256:{B}")]);
        assert_eq!(constraints(&(package("1", "", A) + &package("2", "", B))).unwrap(), [""; 0]);
    }

    #[test]
    fn weak_hashes_leave_the_version_and_sources_without_hashes_nothing() {
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
