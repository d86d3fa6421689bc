//! Apache Airflow's own web UI, unmodified and with its licence: a component that the home has completely or not at
//! all. Everything except the UI itself works without it.

use crate::archive::{self, ArchiveError};
use crate::wheel::{self, DownloadError};
use flate2::Compression;
use flate2::write::GzEncoder;
use leoflow_base::airflow_minors::{WebUi, preferred_ui};
use leoflow_base::home::{Home, shared};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The Python package that contains the UI.
const PACKAGE: &str = "apache-airflow-core";
/// Name of the component in a release.
pub const COMPONENT: &str = "airflow-ui";
/// Time limit for a download of seven megabytes, because a setup waits for it.
const LIMIT: Duration = Duration::from_secs(120);
/// Folder of the UI in the wheel.
const DIST: &str = "airflow/ui/dist";
const LICENSES: [&str; 2] = ["LICENSE", "NOTICE"];
/// Files smaller than this are not compressed, in bytes.
const COMPRESSED_FROM: u64 = 1024;

/// Airflow version of the UI that setup installs and a release contains.
pub fn version() -> &'static str {
    preferred_ui().version
}

/// Folder of the UI, if installed.
pub fn installed(home: &Home, ui: &WebUi) -> Option<PathBuf> {
    Some(folder(home, ui.version)).filter(|folder| folder.is_dir())
}

/// All installed versions: an earlier release needs its own version again after a rollback.
pub fn installed_versions(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.ui()).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| !name.starts_with('.')).collect()
}

fn folder(home: &Home, version: &str) -> PathBuf {
    home.ui().join(version)
}

/// Source of the UI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UiSource {
    /// The package index configured for pip.
    Index,
    /// A wheel or an archive of a release: `LEOFLOW_UI`.
    File(PathBuf),
    /// A wheel or archive next to the binary; the index if it is unusable.
    NextToBinary(PathBuf),
    /// `LEOFLOW_UI=none`.
    None,
}

impl UiSource {
    pub fn from_environment() -> Self {
        match env_vars::path("LEOFLOW_UI") {
            Some(path) if path.as_os_str() == "none" => Self::None,
            Some(path) => Self::File(path),
            None => find_next_to_binary().map_or(Self::Index, Self::NextToBinary),
        }
    }
}

/// Finds the UI next to the binary: a wheel in the folder `airflow-ui`, or the archive that an installer put there.
fn find_next_to_binary() -> Option<PathBuf> {
    let exe = env_vars::current_exe().ok()?;
    if let Some(wheel) = wheel_in(&exe.parent()?.join("airflow-ui")) {
        return Some(wheel);
    }
    let prefix = format!("{COMPONENT}-{}-", version());
    let is_archive = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(".tar.zst")
    };
    fs::read_dir(exe.parent()?).ok()?.flatten().map(|entry| entry.path()).find(is_archive)
}

/// Why the UI was not installed.
#[derive(Debug, thiserror::Error)]
pub enum UiError {
    #[error("LEOFLOW_UI is set to none")]
    Disabled,
    #[error("{0:?} is not a valid version")]
    Version(String),
    #[error("cannot write {folder}: {source}")]
    Write { folder: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{file}: {source}")]
    Archive { file: PathBuf, source: ArchiveError },
    #[error("{file} is not the web UI of Airflow {version}")]
    OtherVersion { file: PathBuf, version: &'static str },
    #[error(transparent)]
    Wheel(#[from] DownloadError),
    #[error("{file}; and from the package index: {index}")]
    Nowhere { file: Box<UiError>, index: Box<UiError> },
}

impl UiError {
    /// Converts an error about a path.
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    fn archive(file: &Path) -> impl FnOnce(ArchiveError) -> Self {
        move |source| Self::Archive { file: file.to_owned(), source }
    }
}

/// Gets a UI, checks it, and installs it by one rename. A failure leaves nothing behind. A release contains only the
/// preferred UI; any other one comes from the package index or from a wheel.
pub fn install(home: &Home, source: &UiSource, ui: &WebUi) -> Result<(), UiError> {
    if installed(home, ui).is_some() {
        return Ok(());
    }
    if let UiSource::NextToBinary(file) = source {
        if ui != preferred_ui() {
            return install(home, &UiSource::Index, ui);
        }
        return install(home, &UiSource::File(file.clone()), ui).or_else(|file| {
            install(home, &UiSource::Index, ui)
                .map_err(|index| UiError::Nowhere { file: Box::new(file), index: Box::new(index) })
        });
    }
    if *source == UiSource::Index && shared::copy_from_other_instance(home, &folder(home, ui.version)) {
        return Ok(());
    }
    install_from(home, ui.version, |staging| {
        let file = match source {
            UiSource::None => return Err(UiError::Disabled),
            UiSource::File(path) | UiSource::NextToBinary(path) => path.clone(),
            UiSource::Index => download(&staging.join("download"), ui)?,
        };
        if file.extension().is_some_and(|end| end == "whl") {
            return tree_of_wheel(&file, staging, ui);
        }
        let tree = tree_of_archive(&file, staging)?;
        match tree_sha256(&tree).map_err(UiError::at(&tree))? {
            sha256 if sha256 == ui.tree => Ok(tree),
            _ => Err(UiError::OtherVersion { file, version: ui.version }),
        }
    })
}

/// Installs another version from an archive verified by a signed manifest.
pub fn install_component(home: &Home, version: &str, archive: &Path) -> Result<(), UiError> {
    if !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)) || version.starts_with('.') {
        return Err(UiError::Version(version.to_owned()));
    }
    install_from(home, version, |staging| tree_of_archive(archive, staging))
}

/// Installs the tree that `fill` creates in a staging folder, unless the version is installed.
fn install_from(
    home: &Home,
    version: &str,
    fill: impl FnOnce(&Path) -> Result<PathBuf, UiError>,
) -> Result<(), UiError> {
    let target = folder(home, version);
    if target.is_dir() {
        return Ok(());
    }
    let failed = |source: io::Error| UiError::Write { folder: home.ui(), source };
    home.create_folder(&home.ui()).map_err(failed)?;
    files::create_folder_atomic(&target, failed, |staging| {
        let tree = fill(staging)?;
        compress(&tree).map_err(failed)?;
        Ok(tree)
    })
}

/// Extracts the UI's files with `LICENSE` and `NOTICE` from the wheel into `tree` below `folder`.
pub fn tree_of_wheel(wheel: &Path, folder: &Path, ui: &WebUi) -> Result<PathBuf, UiError> {
    wheel::check(wheel, ui.wheel)?;
    let unpacked = folder.join("unpacked");
    fs::create_dir(&unpacked).map_err(UiError::at(&unpacked))?;
    archive::unpack_wheel(wheel, &unpacked, is_ui_file).map_err(UiError::archive(wheel))?;
    arrange(&unpacked, &folder.join("tree")).map_err(UiError::at(wheel))
}

/// Unpacks an archive of a release into `tree` below `folder`.
fn tree_of_archive(archive: &Path, folder: &Path) -> Result<PathBuf, UiError> {
    let tree = folder.join("tree");
    fs::create_dir(&tree).map_err(UiError::at(&tree))?;
    archive::unpack(archive, &tree).map_err(UiError::archive(archive))?;
    with_index(tree).map_err(UiError::at(archive))
}

/// The tree, if it has the UI's start page.
fn with_index(tree: PathBuf) -> io::Result<PathBuf> {
    if tree.join("index.html").is_file() { Ok(tree) } else { Err(io::Error::other("it has no index.html")) }
}

/// sha256 of all files of the tree, sorted by path: path, length and content of each.
pub(crate) fn tree_sha256(tree: &Path) -> io::Result<String> {
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

/// Lists all files below a folder.
pub fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// The package of the UI with its version, in pip's notation.
pub fn requirement(ui: &WebUi) -> String {
    format!("{PACKAGE}=={}", ui.version)
}

/// Finds the wheel of the UI among downloads.
pub fn wheel_in(folder: &Path) -> Option<PathBuf> {
    let wheel = folder.join(format!("{}-{}-py3-none-any.whl", PACKAGE.replace('-', "_"), version()));
    wheel.is_file().then_some(wheel)
}

/// Downloads the wheel into a new folder.
pub fn download(folder: &Path, ui: &WebUi) -> Result<PathBuf, DownloadError> {
    fs::create_dir(folder).map_err(DownloadError::at(folder))?;
    wheel::download(&wheel::Wheels { packages: &[&requirement(ui)], platforms: &["any"] }, folder, LIMIT)?;
    wheel::find(folder, |name| name.ends_with(".whl"))
}

/// True for the files of the wheel that are installed: the UI and its licences.
fn is_ui_file(path: &Path) -> bool {
    let is_license = || {
        let has_name = LICENSES.iter().any(|name| path.ends_with(Path::new("licenses").join(name)));
        has_name
            && path.components().next().is_some_and(|first| first.as_os_str().to_string_lossy().ends_with(".dist-info"))
    };
    path.starts_with(DIST) || is_license()
}

/// Moves the UI and its licences to `tree`.
fn arrange(unpacked: &Path, tree: &Path) -> io::Result<PathBuf> {
    fs::rename(unpacked.join(DIST), tree)?;
    let licenses_folder = fs::read_dir(unpacked)?
        .flatten()
        .map(|entry| entry.path().join("licenses"))
        .find(|folder| folder.is_dir())
        .ok_or_else(|| io::Error::other("it has no licence"))?;
    for name in LICENSES {
        fs::rename(licenses_folder.join(name), tree.join(name))?;
    }
    with_index(tree.to_owned())
}

/// Compresses large text files once at installation, so that no request has to.
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
    fn takes_only_the_ui_and_its_licence_from_the_wheel() {
        for (path, is_taken) in [
            ("airflow/ui/dist/index.html", true),
            ("airflow/ui/dist/assets/index-1.js", true),
            ("airflow/ui/package.json", false),
            ("airflow/models/dag.py", false),
            ("apache_airflow_core-3.3.2.dist-info/licenses/NOTICE", true),
            ("apache_airflow_core-3.3.2.dist-info/METADATA", false),
            ("airflow/licenses/LICENSE", false),
        ] {
            assert_eq!(is_ui_file(Path::new(path)), is_taken, "{path}");
        }
    }
}
