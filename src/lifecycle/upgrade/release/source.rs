//! Release hosts: a folder, or a static file server. Downloads are verified; an interrupted download resumes.

use super::address::{Address, is_address, without_secrets};
use super::manifest::{Asset, MANIFEST, Manifest, ManifestError, SIGNATURE_SUFFIX, SIZE_LIMIT};
use super::signature::{self, SignatureError};
use crate::backup::format::archive::Hashed;
use leoflow_base::home::progress::Reporter;
use leoflow_base::protocol::web::{self, chain};
use leoflow_base::sys::fs::files;
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod attempt;
mod partial_file;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Folder(PathBuf),
    Url(Address),
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{location} does not exist")]
    Absent { location: String },
    #[error("cannot read {location}: {reason}")]
    Unreachable { location: String, reason: String },
    /// The host's certificate was refused.
    #[error("cannot read {location}: {reason}")]
    Certificate { location: String, reason: String },
    /// The host refused the connection: no server listens there.
    #[error("cannot read {location}: connection refused")]
    Refused { location: String },
    /// A status that a retry does not change.
    #[error("{location} returned HTTP status {status}")]
    Status { location: String, status: u16 },
    /// A captive portal's login page, or an error page served with status 200.
    #[error("{location} is a web page, not a release")]
    Page { location: String },
    #[error("{location} is larger than the limit of {limit} bytes")]
    TooLarge { location: String, limit: u64 },
    #[error("{location} does not match the manifest: {difference}")]
    Different { location: String, difference: String, is_short: bool },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the signature {location}, so the release counts as unsigned: {reason}")]
    Unsigned { location: String, reason: String },
    #[error("{location}: {source}")]
    Signature { location: String, source: SignatureError },
    #[error("{location}: {source}")]
    Manifest { location: String, source: ManifestError },
}

/// A file of a release as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReleaseFile {
    pub url: String,
    pub sha256: String,
    pub size: u64,
}

impl ReleaseFile {
    pub(crate) fn from_asset(asset: &Asset) -> Result<Self, ManifestError> {
        Ok(Self { url: asset.url.clone(), sha256: asset.sha256()?.to_owned(), size: asset.size })
    }

    /// The file's name in the download folder.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or(&self.url)
    }
}

/// Time limit of a whole download.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const MAX_REDIRECTS: usize = 5;
/// Size limit of a signature file, in bytes.
const SIGNATURE_LIMIT: u64 = 64 * 1024;
/// Maximum number of reconnects of one download.
const MAX_RECONNECTS: u32 = 20;

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Url(address) => write!(f, "{address}"),
        }
    }
}

impl Source {
    /// Parses a URL, a `file://` URL, a folder, or the path of a manifest.
    pub fn parse(text: &str) -> Self {
        if is_address(text) {
            return Self::Url(Address::parse(text));
        }
        let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
        let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        Self::Folder(folder.canonicalize().unwrap_or_else(|_| folder.to_owned()))
    }

    /// The source as text for [`Self::parse`], with secrets, to pass to a process of the same user.
    pub fn with_secrets(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Url(address) => address.with_secrets(),
        }
    }

    /// True when the address contains a user name, password or token.
    pub fn has_secret(&self) -> bool {
        matches!(self, Self::Url(address) if address.with_secrets() != address.redacted(""))
    }

    /// The location of a file without secrets, for messages.
    fn location(&self, name: &str) -> String {
        match self {
            Self::Folder(_) if is_address(name) => without_secrets(name),
            Self::Folder(folder) => folder.join(name).display().to_string(),
            Self::Url(address) => address.redacted(name),
        }
    }

    /// The URL to request, with the secrets.
    fn request(&self, name: &str) -> String {
        match self {
            Self::Folder(_) => name.to_owned(),
            Self::Url(address) => address.request(name),
        }
    }

    /// Reads the manifest and verifies its signature.
    pub async fn manifest(&self, keys: &[String]) -> Result<Manifest, FetchError> {
        let location = self.location(MANIFEST);
        let text = self.read(MANIFEST, SIZE_LIMIT).await?;
        if is_page(&text) {
            return Err(FetchError::Page { location });
        }
        let name = format!("{MANIFEST}{SIGNATURE_SUFFIX}");
        let signature = self.read(&name, SIGNATURE_LIMIT).await.map_err(|error| {
            let (location, reason) = match error {
                FetchError::Unreachable { location, reason } | FetchError::Certificate { location, reason } => {
                    (location, reason)
                }
                FetchError::Refused { location } => (location, "connection refused".to_owned()),
                FetchError::Absent { location } => (location, "it does not exist".to_owned()),
                FetchError::Status { location, status } => (location, format!("HTTP status {status}")),
                other => return other,
            };
            FetchError::Unsigned { location, reason }
        })?;
        if is_page(&signature) {
            return Err(FetchError::Page { location: self.location(&name) });
        }
        signature::verify(keys, &text, &String::from_utf8_lossy(&signature))
            .map_err(|source| FetchError::Signature { location: location.clone(), source })?;
        Manifest::parse_at(&text, &location).map_err(|source| FetchError::Manifest { location, source })
    }

    /// Reads a small file that the manifest lists, at most `size` bytes, and verifies its hash.
    pub(in crate::upgrade) async fn read_verified(
        &self,
        url: &str,
        sha256: &str,
        size: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let bytes = self.read(url, size).await?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found == sha256 {
            return Ok(bytes);
        }
        let difference = format!("its sha256 is {found}, expected {sha256}");
        Err(FetchError::Different { location: self.location(url), difference, is_short: false })
    }

    /// Reads a small file. Fails with `TooLarge` above `limit` bytes.
    async fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let location = self.location(name);
        let unreachable = |reason: String| FetchError::Unreachable { location: location.clone(), reason };
        let mut bytes = Vec::new();
        match self {
            Self::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(|error| open_error(&location, &error))?;
                file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| unreachable(error.to_string()))?;
            }
            Self::Url(_) => {
                let read = async {
                    let response = client()?.get(self.request(name)).send().await?.error_for_status()?;
                    bytes = web::read_body(response, limit, |_| {}).await?;
                    Ok(())
                };
                with_timeout(&location, read).await?;
            }
        }
        if bytes.len() as u64 > limit {
            return Err(FetchError::TooLarge { location, limit });
        }
        Ok(bytes)
    }

    /// Downloads the file into `folder`, verifies it against the manifest and returns its path. A complete file is not
    /// fetched again; a partial one is resumed.
    pub async fn fetch(
        &self,
        release_file: &ReleaseFile,
        folder: &Path,
        reporter: &dyn Reporter,
    ) -> Result<PathBuf, FetchError> {
        let path = folder.join(release_file.name());
        let location = self.location(&release_file.url);
        if path.exists() && check(&path, release_file, &location).is_ok() {
            return Ok(path);
        }
        let part = folder.join(format!("{}.part", release_file.name()));
        let resumed_bytes = fs::metadata(&part).map(|meta| meta.len()).unwrap_or(0);
        let mut outcome = self
            .fetch_with_retries(release_file, &part, reporter)
            .await
            .and_then(|()| check(&part, release_file, &location));
        let is_different =
            matches!(outcome, Err(FetchError::Different { is_short: false, .. } | FetchError::TooLarge { .. }));
        if is_different && resumed_bytes > 0 {
            // The partial file belongs to another file of the same name; start again.
            remove(&part)?;
            outcome = self
                .fetch_into(release_file, &part, reporter)
                .await
                .and_then(|()| check(&part, release_file, &location));
        }
        if let Err(error) = outcome {
            // Keep a short file: the next attempt resumes it.
            if matches!(error, FetchError::Different { is_short: false, .. } | FetchError::TooLarge { .. }) {
                remove(&part)?;
            }
            return Err(error);
        }
        let write = |source| FetchError::Write { path: path.clone(), source };
        File::open(&part).and_then(|file| files::sync(&file)).map_err(write)?;
        files::rename_durably(&part, &path).map_err(write)?;
        Ok(path)
    }

    /// Downloads with reconnects: after an interruption, tries again as long as each attempt makes progress.
    async fn fetch_with_retries(
        &self,
        release_file: &ReleaseFile,
        part: &Path,
        reporter: &dyn Reporter,
    ) -> Result<(), FetchError> {
        let begun = Instant::now();
        let length = || fs::metadata(part).map(|meta| meta.len()).unwrap_or(0);
        for _ in 0..MAX_RECONNECTS {
            let before = length();
            match self.fetch_into(release_file, part, reporter).await {
                Err(FetchError::Unreachable { .. }) if length() > before && begun.elapsed() < TOTAL_TIMEOUT => {}
                outcome => return outcome,
            }
        }
        self.fetch_into(release_file, part, reporter).await
    }
}

fn remove(path: &Path) -> Result<(), FetchError> {
    leoflow_base::sys::fs::files::remove_any(path).map_err(|source| FetchError::Write { path: path.to_owned(), source })
}

fn open_error(location: &str, error: &io::Error) -> FetchError {
    let location = location.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => FetchError::Absent { location },
        _ => FetchError::Unreachable { location, reason: error.to_string() },
    }
}

fn check(path: &Path, release_file: &ReleaseFile, location: &str) -> Result<(), FetchError> {
    let read = |source: io::Error| FetchError::Unreachable {
        location: path.display().to_string(),
        reason: source.to_string(),
    };
    let mut file = Hashed::new(BufReader::with_capacity(256 * 1024, File::open(path).map_err(read)?));
    let mut first_bytes = Vec::new();
    file.by_ref().take(32).read_to_end(&mut first_bytes).map_err(read)?;
    io::copy(&mut file, &mut io::sink()).map_err(read)?;
    let size = file.bytes;
    let sha256 = String::from(file.sha256());
    if sha256 == release_file.sha256 && size == release_file.size {
        return Ok(());
    }
    let is_page = is_page(&first_bytes);
    let is_short = size < release_file.size && !is_page;
    let difference = match size {
        _ if is_page => "the host returned a web page".to_owned(),
        _ if is_short => format!("it ends after {size} of {} bytes", release_file.size),
        _ => format!("its sha256 is {sha256}, expected {}", release_file.sha256),
    };
    Err(FetchError::Different { location: location.to_owned(), difference, is_short })
}

fn is_page(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'<')
}

fn client() -> reqwest::Result<reqwest::Client> {
    web::client().redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS)).build()
}

/// True if the cause is a refused connection.
fn is_refused(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut io_errors = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    io_errors.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

async fn with_timeout(location: &str, request: impl Future<Output = reqwest::Result<()>>) -> Result<(), FetchError> {
    let location = location.to_owned();
    match tokio::time::timeout(TOTAL_TIMEOUT, request).await {
        Ok(Err(error)) if matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE)) => {
            Err(FetchError::Absent { location })
        }
        Ok(Err(error)) if error.status().is_some() => {
            Err(FetchError::Status { location, status: error.status().map_or(0, |status| status.as_u16()) })
        }
        Ok(Err(error)) if is_refused(&error) => Err(FetchError::Refused { location }),
        Ok(Err(error)) if web::is_certificate_error(&error) => {
            Err(FetchError::Certificate { location, reason: chain(&error.without_url()) })
        }
        Ok(done) => done.map_err(|error| FetchError::Unreachable { location, reason: chain(&error.without_url()) }),
        Err(_) => {
            let reason = format!("not finished after {} minutes", TOTAL_TIMEOUT.as_secs() / 60);
            Err(FetchError::Unreachable { location, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_server_refuses_the_manifest() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let source = Source::parse(&format!("http://{}", listener.local_addr().unwrap()));
        drop(listener);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(source.manifest(&[])).unwrap_err();
        assert!(
            matches!(&error, FetchError::Refused { location } if location.ends_with("/manifest.json")),
            "{error:?}"
        );
    }
}
