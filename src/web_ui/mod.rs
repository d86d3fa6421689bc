//! Apache Airflow's own web UI, unmodified, with its licence: a component beside the binary, complete in the home or
//! absent. Everything but the page itself works without it.

use crate::home::Home;
use crate::postgres::{archive, wheel};
use crate::sys::{env_vars, files};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const VERSION: &str = "3.3.2";
/// The package that carries it, and the sha256 of its one wheel.
const PACKAGE: &str = "apache-airflow-core";
const SHA256: &str = "99258922bccec15be4700ff89f3c942b8acd93407e263c287ce863e671bb3c50";
/// The component of a release that carries it.
pub const COMPONENT: &str = "airflow-ui";
/// Of its files, however they came: see [`tree_sha256`].
const TREE_SHA256: &str = "13a7939b0617b6b3c999e5e74feed51cd291f739c2917e55ce83f9e5d6ffeb98";
/// Seven megabytes, and an end to everything that hangs: a setup waits for it.
const LIMIT: Duration = Duration::from_secs(120);
/// What the wheel holds of it.
const DIST: &str = "airflow/ui/dist";
const LICENSES: [&str; 2] = ["LICENSE", "NOTICE"];
/// Smaller files are not worth a second copy.
const COMPRESSED_FROM: u64 = 1024;

/// Where it is, if it is there.
pub fn installed(home: &Home) -> Option<PathBuf> {
    Some(folder(home, VERSION)).filter(|folder| folder.is_dir())
}

/// All versions that are there: a release that is left behind needs its own once more when one goes back to it.
pub fn installed_versions(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.ui()).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| !name.starts_with('.')).collect()
}

fn folder(home: &Home, version: &str) -> PathBuf {
    home.ui().join(version)
}

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UiSource {
    /// The index that pip is configured for.
    Index,
    /// The wheel or a release's archive: `LEOFLOW_UI`.
    File(PathBuf),
    /// The same beside the binary; where that cannot be used, the index.
    Beside(PathBuf),
    /// `LEOFLOW_UI=none`.
    None,
}

impl UiSource {
    pub fn from_environment() -> Self {
        match env_vars::path("LEOFLOW_UI") {
            Some(path) if path.as_os_str() == "none" => Self::None,
            Some(path) => Self::File(path),
            None => beside_the_binary().map_or(Self::Index, Self::Beside),
        }
    }
}

/// The wheel, in a folder `airflow-ui`; or the archive, as an installer puts it there.
fn beside_the_binary() -> Option<PathBuf> {
    let exe = env_vars::current_exe().ok()?;
    let wheel = format!("{}-{VERSION}-py3-none-any.whl", PACKAGE.replace('-', "_"));
    let wheel = exe.parent()?.join("airflow-ui").join(wheel);
    if wheel.is_file() {
        return Some(wheel);
    }
    let begins = format!("{COMPONENT}-{VERSION}-");
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&begins) && name.ends_with(".tar.zst")
    };
    fs::read_dir(exe.parent()?).ok()?.flatten().map(|entry| entry.path()).find(is_it)
}

/// Gets it, checks it, and puts it into its place by one rename. The error is for people; it leaves nothing behind.
pub fn install(home: &Home, source: &UiSource) -> Result<(), String> {
    if let UiSource::Beside(file) = source {
        let from_file = install(home, &UiSource::File(file.clone()));
        return from_file.or_else(|reason| {
            install(home, &UiSource::Index).map_err(|other| format!("{reason}; and from the package index: {other}"))
        });
    }
    put(home, VERSION, |staging| {
        let file = match source {
            UiSource::None => return Err("LEOFLOW_UI says that there is to be none".to_owned()),
            UiSource::File(path) | UiSource::Beside(path) => path.clone(),
            UiSource::Index => download(&staging.join("download"))?,
        };
        if file.extension().is_some_and(|end| end == "whl") {
            return tree_of_wheel(&file, staging);
        }
        let tree = tree_of_archive(&file, staging)?;
        match tree_sha256(&tree).map_err(|error| format!("{}: {error}", tree.display()))? {
            found if found == TREE_SHA256 => Ok(tree),
            _ => Err(format!("{} is not the web UI of Airflow {VERSION}", file.display())),
        }
    })
}

/// Puts another version's into its place, out of an archive that a signed manifest has vouched for.
pub fn install_component(home: &Home, version: &str, archive: &Path) -> Result<(), String> {
    if !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)) || version.starts_with('.') {
        return Err(format!("{version:?} is no version"));
    }
    put(home, version, |staging| tree_of_archive(archive, staging))
}

fn put(home: &Home, version: &str, fill: impl FnOnce(&Path) -> Result<PathBuf, String>) -> Result<(), String> {
    let target = folder(home, version);
    if target.is_dir() {
        return Ok(());
    }
    let told = |error: io::Error| format!("{} cannot be written: {error}", home.ui().display());
    home.create_folder(&home.ui()).map_err(told)?;
    files::make_whole(&target, told, |staging| {
        let tree = fill(staging)?;
        compress(&tree).map_err(told)?;
        Ok(tree)
    })
}

/// Its files with `LICENSE` and `NOTICE`, in `tree` below `folder`, out of the one wheel that has them.
pub fn tree_of_wheel(wheel: &Path, folder: &Path) -> Result<PathBuf, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", wheel.display());
    wheel::check(wheel, SHA256)?;
    let unpacked = folder.join("unpacked");
    fs::create_dir(&unpacked).map_err(|error| error.to_string())?;
    archive::unpack_wheel(wheel, &unpacked, is_of_the_ui).map_err(|error| told(&error))?;
    arrange(&unpacked, &folder.join("tree")).map_err(|error| told(&error))
}

fn tree_of_archive(archive: &Path, folder: &Path) -> Result<PathBuf, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", archive.display());
    let tree = folder.join("tree");
    fs::create_dir(&tree).map_err(|error| error.to_string())?;
    archive::unpack(archive, &tree).map_err(|error| told(&error))?;
    if !tree.join("index.html").is_file() {
        return Err(told(&"it has no index.html"));
    }
    Ok(tree)
}

/// The sha256 over all files of the tree in the order of their paths: of each its path, its length and its bytes.
pub fn tree_sha256(tree: &Path) -> io::Result<String> {
    let mut paths = files_below(tree)?;
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        let bytes = fs::read(&path)?;
        let name = path.strip_prefix(tree).unwrap_or(&path).as_os_str().as_encoded_bytes();
        for part in [name, &bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    Ok(hex::encode(hash.finalize()))
}

/// All files of a folder and of those within it.
pub fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Gets the wheel into a new folder.
pub fn download(folder: &Path) -> Result<PathBuf, String> {
    fs::create_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let package = format!("{PACKAGE}=={VERSION}");
    wheel::download(&wheel::Wheels { packages: &[&package], platforms: &["any"] }, folder, LIMIT)?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|end| end == "whl");
    let found =
        fs::read_dir(folder).map_err(|error| error.to_string())?.flatten().map(|entry| entry.path()).find(is_wheel);
    found.ok_or_else(|| "pip reported success and left no wheel".to_owned())
}

fn is_of_the_ui(path: &Path) -> bool {
    let is_license = || {
        let named = LICENSES.iter().any(|name| path.ends_with(Path::new("licenses").join(name)));
        named
            && path.components().next().is_some_and(|first| first.as_os_str().to_string_lossy().ends_with(".dist-info"))
    };
    path.starts_with(DIST) || is_license()
}

fn arrange(unpacked: &Path, tree: &Path) -> io::Result<PathBuf> {
    fs::rename(unpacked.join(DIST), tree)?;
    let information = fs::read_dir(unpacked)?
        .flatten()
        .map(|entry| entry.path().join("licenses"))
        .find(|folder| folder.is_dir())
        .ok_or_else(|| io::Error::other("it has no licence"))?;
    for name in LICENSES {
        fs::rename(information.join(name), tree.join(name))?;
    }
    if !tree.join("index.html").is_file() {
        return Err(io::Error::other("it has no index.html"));
    }
    Ok(tree.to_owned())
}

/// Each file that is worth it has a copy that is compressed: once, and not for each request.
fn compress(tree: &Path) -> io::Result<()> {
    for path in files_below(tree)? {
        let is_text = path
            .extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| ["js", "css", "json", "svg", "ttf", "html"].contains(&end));
        if !is_text || fs::metadata(&path)?.len() < COMPRESSED_FROM {
            continue;
        }
        let mut name = path.clone().into_os_string();
        name.push(".gz");
        let mut encoder = GzEncoder::new(File::create_new(name)?, Compression::best());
        io::copy(&mut File::open(&path)?, &mut encoder)?;
        encoder.finish()?.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_python_package_is_of_the_same_airflow() {
        let text = include_str!("../python/package/leoflow/common/airflow_version.py");
        assert!(text.contains(&format!("version = \"{VERSION}\"\n")), "{text}");
    }

    #[test]
    fn of_the_wheel_only_the_ui_and_its_licence_are_taken() {
        for (path, is_taken) in [
            ("airflow/ui/dist/index.html", true),
            ("airflow/ui/dist/assets/index-1.js", true),
            ("airflow/ui/package.json", false),
            ("airflow/models/dag.py", false),
            ("apache_airflow_core-3.3.2.dist-info/licenses/NOTICE", true),
            ("apache_airflow_core-3.3.2.dist-info/METADATA", false),
            ("airflow/licenses/LICENSE", false),
        ] {
            assert_eq!(is_of_the_ui(Path::new(path)), is_taken, "{path}");
        }
    }
}
