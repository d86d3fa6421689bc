//! Apache Airflow's own web UI, unmodified, with its licence: a component beside the binary, complete in the home or
//! absent. Everything but the page itself works without it.

use crate::home::Home;
use crate::postgres::{archive, wheel};
use crate::sys::{env_vars, files};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const VERSION: &str = "3.3.2";
/// The package that carries it, and the sha256 of its one wheel.
const PACKAGE: &str = "apache-airflow-core";
const SHA256: &str = "99258922bccec15be4700ff89f3c942b8acd93407e263c287ce863e671bb3c50";
/// Seven megabytes, and an end to everything that hangs: a setup waits for it.
const LIMIT: Duration = Duration::from_secs(120);
/// What the wheel holds of it.
const DIST: &str = "airflow/ui/dist";
const LICENSES: [&str; 2] = ["LICENSE", "NOTICE"];
/// Smaller files are not worth a second copy.
const COMPRESSED_FROM: u64 = 1024;

/// Where it is, if it is there.
pub fn installed(home: &Home) -> Option<PathBuf> {
    Some(folder(home)).filter(|folder| folder.is_dir())
}

fn folder(home: &Home) -> PathBuf {
    home.ui().join(VERSION)
}

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UiSource {
    /// The index that pip is configured for.
    Index,
    /// The wheel: `LEOFLOW_UI`, or in `airflow-ui` beside the binary.
    Wheel(PathBuf),
    /// `LEOFLOW_UI=none`.
    None,
}

impl UiSource {
    pub fn from_environment() -> Self {
        match env_vars::path("LEOFLOW_UI") {
            Some(path) if path.as_os_str() == "none" => Self::None,
            Some(path) => Self::Wheel(path),
            None => beside_the_binary().map_or(Self::Index, Self::Wheel),
        }
    }
}

fn beside_the_binary() -> Option<PathBuf> {
    let exe = env_vars::current_exe().ok()?;
    let name = format!("{}-{VERSION}-py3-none-any.whl", PACKAGE.replace('-', "_"));
    Some(exe.parent()?.join("airflow-ui").join(name)).filter(|wheel| wheel.is_file())
}

/// Gets it, checks it, and puts it into its place by one rename. The error is for people; it leaves nothing behind.
pub fn install(home: &Home, source: &UiSource) -> Result<(), String> {
    let target = folder(home);
    if target.is_dir() {
        return Ok(());
    }
    let told = |error: io::Error| format!("{} cannot be written: {error}", home.ui().display());
    home.create_folder(&home.ui()).map_err(told)?;
    files::make_whole(&target, told, |staging| fill(staging, source))
}

fn fill(staging: &Path, source: &UiSource) -> Result<PathBuf, String> {
    let wheel = match source {
        UiSource::None => return Err("LEOFLOW_UI says that there is to be none".to_owned()),
        UiSource::Wheel(path) => path.clone(),
        UiSource::Index => download(&staging.join("download"))?,
    };
    wheel::check(&wheel, SHA256)?;
    let unpacked = staging.join("unpacked");
    fs::create_dir(&unpacked).map_err(|error| error.to_string())?;
    archive::unpack_wheel(&wheel, &unpacked, is_of_the_ui).map_err(|error| format!("{}: {error}", wheel.display()))?;
    arrange(&unpacked, &staging.join("tree")).map_err(|error| format!("{}: {error}", wheel.display()))
}

fn download(folder: &Path) -> Result<PathBuf, String> {
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

/// Its files with `LICENSE` and `NOTICE` beside them, each that is worth it compressed too: once, and not for each
/// request.
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
    compress(tree)?;
    Ok(tree.to_owned())
}

fn compress(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            compress(&path)?;
            continue;
        }
        let is_text = path
            .extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| ["js", "css", "json", "svg", "ttf", "html"].contains(&end));
        if !is_text || entry.metadata()?.len() < COMPRESSED_FROM {
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
