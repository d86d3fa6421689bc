//! Builds environments: declared requirements become a lock, and a lock an immutable folder.

use super::bytecode;
use super::declared::Declared;
use super::installed::{self, program};
use super::managed;
use super::uv::Uv;
use super::{airflow_versions, pins};
use crate::{Python, discover};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::checkpoint::checkpoint;
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Time limit for resolving the requirements.
const RESOLVE_LIMIT: Duration = Duration::from_secs(300);
/// Time limit for downloads of gigabytes and for compiling.
const INSTALL_LIMIT: Duration = Duration::from_secs(1800);
/// Time limit for waiting while another process builds.
const BUILD_LOCK_LIMIT: Duration = Duration::from_secs(2400);
const PRUNE_LIMIT: Duration = Duration::from_secs(120);

/// Written last: a folder without it is incomplete or being removed.
const STAMP: &str = ".leoflow-deps";
/// Prefix of incomplete folders.
const STAGING: &str = ".install-";

/// The exact packages for one minor version of Python. Stored in the datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub declared: Declared,
    /// `3.12`.
    pub python: String,
    /// In pip's syntax, with hashes.
    pub text: String,
}

/// The stamp file in the folder of an environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stamp {
    #[serde(flatten)]
    pub lock: Lock,
    /// `3.12.1`.
    pub version: String,
    /// The real path of the Python: after a system upgrade a link may lead to another one.
    pub base: PathBuf,
    /// RFC 3339.
    pub created_at: String,
}

impl Lock {
    /// Identifies the packages, on any machine.
    pub fn hash(&self) -> String {
        let contents = serde_json::json!([self.text, self.python]);
        hex::encode(&Sha256::digest(contents.to_string().as_bytes())[..16])
    }

    /// Identifies what it was resolved from.
    pub fn inputs(&self) -> String {
        self.declared.inputs(&self.python)
    }

    /// `(name, version)` of its packages, sorted; versions for different Pythons or platforms are joined by `or`.
    pub fn packages(&self) -> Vec<(String, String)> {
        let mut versions_by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let requirements = self.text.lines().filter(|line| !line.starts_with([' ', '#']) && !line.trim().is_empty());
        for line in requirements {
            let requirement = line.trim_end_matches('\\').split(" ;").next().unwrap_or_default().trim();
            let pinned = requirement.split_once("==").or_else(|| requirement.split_once(" @ "));
            if let Some((name, version)) = pinned {
                versions_by_name.entry(name.trim().to_owned()).or_default().push(version.trim().to_owned());
            }
        }
        versions_by_name.into_iter().map(|(name, versions)| (name, versions.join(" or "))).collect()
    }

    /// Restricts the lock to the files that the project pins. The error, for people, names what the project or this
    /// release forbids.
    pub fn allowed(mut self) -> Result<Self, String> {
        self.text = pins::restrict(&self.text, self.declared.pinning())?;
        airflow_versions::check(&self.packages())?;
        Ok(self)
    }

    /// True if the lock may be installed as is; one of an earlier release may contain forbidden packages.
    pub fn is_allowed(&self) -> bool {
        self.clone().allowed().is_ok_and(|allowed| allowed == *self)
    }
}

/// Resolves the requirements to the newest matching versions.
pub fn lock(
    uv: &Uv,
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<Lock, String> {
    let staging = Staging::new(home).map_err(|error| unwritable(home, &error))?;
    let (requirements_file, constraints_file, locked) =
        (staging.0.join("requirements.in"), staging.0.join("constraints.txt"), staging.0.join("lock.txt"));
    let write = || -> io::Result<()> {
        std::fs::write(&requirements_file, lines(&declared.requirements))?;
        std::fs::write(&constraints_file, lines(&declared.constraints) + &lines(&airflow_versions::bounds()))
    };
    write().map_err(|error| unwritable(home, &error))?;
    let mut arguments: Vec<OsString> = ["pip", "compile", "--universal", "--generate-hashes", "--no-header"]
        .into_iter()
        .chain(["--no-annotate", "--python-version"])
        .map(Into::into)
        .collect();
    let version = declared.python_of_lock(python);
    arguments.push(version.clone().into());
    for (name, value) in [("--constraints", &constraints_file), ("--python", &python.path), ("--output-file", &locked)]
    {
        arguments.extend([name.into(), value.into()]);
    }
    if let Some(date) = &declared.index.exclude_newer {
        arguments.extend(["--exclude-newer".into(), date.into()]);
    }
    arguments.push(requirements_file.clone().into());
    arguments.extend(index_arguments(declared));
    reporter.report(Progress::Started(format!("Resolving {}", declared.requirements.join(", "))));
    uv.run(arguments, RESOLVE_LIMIT, reporter).map_err(airflow_versions::add_advice)?;
    checkpoint("environment.locked");
    let text = std::fs::read_to_string(&locked).map_err(|error| unwritable(home, &error))?;
    Lock { declared: declared.clone(), python: version, text }.allowed()
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|line| format!("{line}\n")).collect()
}

/// uv's arguments for the declared package indexes.
fn index_arguments(declared: &Declared) -> Vec<OsString> {
    let first = declared.index.first.iter().flat_map(|url| ["--default-index".to_owned(), url.clone()]);
    let extra = declared.index.extra.iter().flat_map(|url| ["--index".to_owned(), url.clone()]);
    first.chain(extra).map(Into::into).collect()
}

fn unwritable(home: &Home, error: &io::Error) -> String {
    format!("failed to write {}: {error}", home.environments().display())
}

/// The folder of a lock's environment, named after the lock and the installed Python.
fn environment_folder(home: &Home, hash: &str, python: &Python) -> PathBuf {
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let identity = serde_json::json!([python.version, python.path, platform]);
    let python_hash = hex::encode(&Sha256::digest(identity.to_string().as_bytes())[..4]);
    home.environments().join(format!("{}{python_hash}", lock_prefix(hash)))
}

/// The folder name prefix of all environments with these packages.
fn lock_prefix(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// Finds a complete, usable environment of the lock with this hash: the one with the newest Python.
pub fn find(home: &Home, hash: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(home.environments()).ok()?.flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(lock_prefix(hash)))
        .filter_map(|entry| Some((stamp(&entry.path())?, entry.path())))
        .filter(|(stamp, _)| stamp.lock.hash() == hash)
        .max_by_key(|(stamp, _)| (discover::numbers(&stamp.version), stamp.created_at.clone()))
        .map(|(_, folder)| folder)
}

/// The newest environment of each lock.
pub fn newest_of_each(home: &Home) -> Vec<(PathBuf, Stamp)> {
    let is_newest = |(folder, stamp): &(PathBuf, Stamp)| find(home, &stamp.lock.hash()).as_deref() == Some(folder);
    all(home).into_iter().filter(is_newest).collect()
}

/// Records a use of an environment: `prune` removes those unused for long.
pub fn record_use(folder: &Path) {
    // A failure is harmless: an environment whose lock is in use is kept anyway.
    let _ =
        File::options().append(true).open(folder.join(STAMP)).and_then(|stamp| stamp.set_modified(SystemTime::now()));
}

/// All complete environments, with their stamps.
pub fn all(home: &Home) -> Vec<(PathBuf, Stamp)> {
    let entries = std::fs::read_dir(home.environments()).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), stamp(&entry.path())?))).collect()
}

/// The stamp of an environment that is complete and whose Python still exists.
pub fn stamp(folder: &Path) -> Option<Stamp> {
    let text = files::read_text(&folder.join(STAMP), 16 * 1024 * 1024).ok()??;
    let stamp: Stamp = serde_json::from_str(&text).ok()?;
    let has_its_python = program(folder).canonicalize().is_ok_and(|base| base == stamp.base);
    has_its_python.then_some(stamp)
}

/// Builds the environment of a lock unless it exists. Takes a lock, so one is built at a time. Returns its folder.
pub fn build(uv: &Uv, home: &Home, lock: &Lock, python: &Python, reporter: &dyn Reporter) -> Result<PathBuf, String> {
    let target = environment_folder(home, &lock.hash(), python);
    if stamp(&target).is_some() {
        return Ok(target);
    }
    let _lock = lock_builds(home)?;
    if stamp(&target).is_some() {
        return Ok(target);
    }
    let staging = Staging::new(home).map_err(|error| unwritable(home, &error))?;
    let tree = staging.0.join("tree");
    let count = lock.packages().len();
    reporter.report(Progress::Started(format!("Installing {count} packages for Python {}", lock.python)));
    let path_option = |option: &str, path: &Path| [OsString::from(option), path.into()];
    let venv: [OsString; 4] = ["venv", "--quiet", "--relocatable", "--no-project"].map(Into::into);
    let arguments = venv.into_iter().chain(path_option("--python", &python.path)).chain([tree.clone().into()]);
    uv.run(arguments, INSTALL_LIMIT, reporter)?;
    checkpoint("environment.made");
    install(uv, lock, &staging.0, &tree, reporter)?;
    checkpoint("environment.installed");
    let name = target.file_name().unwrap_or_default();
    let history = bytecode::link_stored(home, &tree, name);
    installed::check(&tree, &staging.0, history)?;
    bytecode::save(home, &tree, name);
    let stamp = Stamp {
        lock: lock.clone(),
        version: python.version.clone(),
        base: program(&tree).canonicalize().map_err(|error| format!("failed to resolve its Python: {error}"))?,
        created_at: clock::now_rfc3339(),
    };
    let finish = || -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&stamp)?;
        files::write_atomic(&tree.join(STAMP), &text, 0o600)?;
        files::sync_file_system(&tree)?;
        checkpoint("environment.stamped");
        // The target may be an incomplete environment, or one whose Python is gone.
        files::remove_any(&target)?;
        files::rename_durably(&tree, &target)
    };
    finish().map_err(|error| unwritable(home, &error))?;
    checkpoint("environment.built");
    reporter.report(Progress::Finished(format!("{count} packages for Python {}", lock.python)));
    Ok(target)
}

/// Installs the packages: first offline from the cache, then from the index.
fn install(uv: &Uv, lock: &Lock, staging: &Path, tree: &Path, reporter: &dyn Reporter) -> Result<(), String> {
    if lock.packages().is_empty() {
        return Ok(());
    }
    let locked = staging.join("lock.txt");
    std::fs::write(&locked, &lock.text).map_err(|error| format!("{}: {error}", locked.display()))?;
    // A git address has no files with hashes; the lock names its commit.
    let hashes = if pins::pins_by_commit(&lock.text) { "--verify-hashes" } else { "--require-hashes" };
    let sync = |offline: &[&str]| {
        let mut arguments: Vec<OsString> = ["pip", "sync", hashes, "--python"].map(Into::into).into();
        arguments.extend([program(tree).into(), locked.clone().into()]);
        arguments.extend(offline.iter().map(Into::into));
        arguments.extend(index_arguments(&lock.declared));
        uv.run(arguments, INSTALL_LIMIT, reporter)
    };
    sync(&["--offline"]).or_else(|_| sync(&[]))
}

/// Number of complete environments.
pub fn count(home: &Home) -> usize {
    all(home).len()
}

/// What `prune` does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    Remove,
    /// A dry run.
    ListOnly,
}

/// Removes or lists environments whose lock is not in use and that were unused for `unused_for`, and Pythons that
/// nothing needs then.
pub fn prune(home: &Home, in_use: &[String], unused_for: Duration, pruning: Pruning) -> Result<Vec<PathBuf>, String> {
    let _lock = lock_builds(home)?;
    let is_unused = |(folder, stamp): &(PathBuf, Stamp)| {
        let last_used = std::fs::metadata(folder.join(STAMP)).and_then(|meta| meta.modified()).ok();
        let is_old = last_used.is_none_or(|time| time.elapsed().unwrap_or_default() >= unused_for);
        // An environment that was rebuilt with a newer Python is kept too: agents and tasks may still use it.
        is_old && !in_use.contains(&stamp.lock.hash())
    };
    let (unused, used): (Vec<_>, Vec<_>) = all(home).into_iter().partition(is_unused);
    let bases: Vec<PathBuf> = used.into_iter().map(|(_, stamp)| stamp.base).collect();
    let mut unused: Vec<PathBuf> = unused.into_iter().map(|(folder, _)| folder).collect();
    unused.extend(broken(home));
    let pythons = managed::unused(home, &bases, unused_for);
    if pruning == Pruning::Remove {
        for folder in &unused {
            // Without its stamp it does not count as an environment, even if its removal fails halfway.
            files::remove_any(&folder.join(STAMP)).map_err(|error| unwritable(home, &error))?;
            files::remove_any(folder).map_err(|error| unwritable(home, &error))?;
        }
        managed::remove(home, &pythons)?;
        bytecode::remove_unused(home);
        if let Some(uv) = super::uv::find(home).filter(|_| !unused.is_empty()) {
            // Files of environments are hard links into uv's cache: only pruning that frees their space.
            let _ = uv.run(["cache", "prune"], PRUNE_LIMIT, &|_: Progress| {});
        }
    }
    unused.extend(pythons);
    Ok(unused)
}

/// Broken environments: their Python is gone, or their removal was interrupted.
fn broken(home: &Home) -> Vec<PathBuf> {
    let is_environment_name = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = std::fs::read_dir(home.environments()).into_iter().flatten().flatten();
    let named = entries.filter(|entry| is_environment_name(&entry.file_name().to_string_lossy()));
    named.map(|entry| entry.path()).filter(|folder| stamp(folder).is_none()).collect()
}

/// A staging folder beside the environments; removed with its contents when dropped.
struct Staging(PathBuf);

impl Staging {
    fn new(home: &Home) -> io::Result<Self> {
        home.create_folder(&home.environments())?;
        let name = format!("{STAGING}{}-{}", std::process::id(), hex::encode(leoflow_base::sys::random::bytes::<4>()));
        let folder = home.environments().join(name);
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next build removes what is left.
        let _ = files::remove_any(&self.0);
    }
}

/// Takes the lock for building, and removes the staging folders of killed builds.
fn lock_builds(home: &Home) -> Result<FileLock, String> {
    let write_error = |error: io::Error| unwritable(home, &error);
    home.create_folder(&home.environments()).map_err(write_error)?;
    let path = home.run().join("environments.lock");
    let file = File::options().create(true).append(true).open(path).map_err(write_error)?;
    let lock = FileLock::exclusive_within(file, BUILD_LOCK_LIMIT)
        .map_err(|error| format!("another environment is being built: {error}"))?;
    for entry in std::fs::read_dir(home.environments()).map_err(write_error)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(suffix) = name.strip_prefix(STAGING) else { continue };
        let is_builder_alive = suffix.split('-').next().is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !is_builder_alive {
            files::remove_any(&entry.path()).map_err(write_error)?;
        }
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lists_its_packages() {
        let text = "certifi==2026.1 \\\n    --hash=sha256:ab\nnumpy==2.4 ; python_full_version < '3.12' \\\n    \
                    --hash=sha256:cd\nnumpy==2.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:ef\n";
        let lock = Lock { declared: Declared::default(), python: "3.11".to_owned(), text: text.to_owned() };
        let named = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(lock.packages(), [named("certifi", "2026.1"), named("numpy", "2.4 or 2.5")]);
    }

    #[test]
    fn a_lock_with_unpinned_files_or_a_newer_airflow_is_refused() {
        let (pinned, other) = ("ab".repeat(32), "cd".repeat(32));
        let declared = Declared { requirements: vec![format!("n==1 --hash=sha256:{pinned}")], ..Declared::default() };
        let lock = |text: &str| Lock { declared: declared.clone(), python: "3.11".to_owned(), text: text.to_owned() };
        let both = lock(&format!("n==1 \\\n    --hash=sha256:{pinned} \\\n    --hash=sha256:{other}\n"));
        assert!(!both.is_allowed());
        let allowed = both.allowed().unwrap();
        assert!(allowed.is_allowed() && !allowed.text.contains(&other), "{}", allowed.text);
        let refused = lock(&format!("n==1 \\\n    --hash=sha256:{other}\n")).allowed().unwrap_err();
        assert!(refused.starts_with("n==1: hash mismatch"), "{refused}");
        let newer = lock(&format!("apache-airflow-core==3.4.0 \\\n    --hash=sha256:{other}\n"));
        assert!(newer.allowed().unwrap_err().contains("runs Apache Airflow 3.0 to 3.3"));
    }

    #[test]
    fn an_environment_needs_a_stamp_and_its_python() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock { declared: Declared::default(), python: "3.11".to_owned(), text: String::new() };
        let base = folder.path().canonicalize().unwrap().join("bin/python");
        let stamp_file = Stamp { lock, version: "3.11.7".into(), base, created_at: String::new() };
        std::fs::write(folder.path().join(STAMP), serde_json::to_vec(&stamp_file).unwrap()).unwrap();
        assert!(stamp(folder.path()).is_none());
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(program(folder.path()), "").unwrap();
        assert_eq!(stamp(folder.path()).unwrap().version, "3.11.7");
        // Another Python in its place.
        std::fs::remove_file(program(folder.path())).unwrap();
        std::os::unix::fs::symlink("/bin/sh", program(folder.path())).unwrap();
        assert!(stamp(folder.path()).is_none());
        std::fs::write(folder.path().join(STAMP), "{\"lock\"").unwrap();
        assert!(stamp(folder.path()).is_none());
    }
}
