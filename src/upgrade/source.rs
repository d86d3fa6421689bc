//! Where releases are: a folder, or a server of plain files. What is fetched is checked as it comes, and a
//! download that was cut off goes on where it was.

use super::address::{Address, is_address, without_secrets};
use super::manifest::{Asset, MANIFEST, Manifest, ManifestError, SIGNATURE_SUFFIX, SIZE_LIMIT};
use super::range::{RangeAnswer, answer_to_range};
use super::signature::{self, SignatureError};
use crate::home::progress::{Progress, Reporter};
use crate::protocol::web::{self, chain};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Folder(PathBuf),
    Url(Address),
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{place} is not there")]
    Absent { place: String },
    #[error("cannot read {place}: {reason}")]
    Unreachable { place: String, reason: String },
    /// It answers, with a status that another attempt does not change.
    #[error("{place} answers {status}")]
    Status { place: String, status: u16 },
    /// A login page of the network, or an error page that a server calls a success.
    #[error("{place} is a web page, and no release is behind it")]
    Page { place: String },
    #[error("{place} is larger than the {limit} bytes that it may have")]
    TooLarge { place: String, limit: u64 },
    #[error("{place} is not what the manifest says: {found}")]
    Different { place: String, found: String, is_short: bool },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{place} cannot be read, so nobody has signed what is there: {reason}")]
    Unsigned { place: String, reason: String },
    #[error("{place}: {source}")]
    Signature { place: String, source: SignatureError },
    #[error("{place}: {source}")]
    Manifest { place: String, source: ManifestError },
}

/// A file of a release, as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    pub url: String,
    pub sha256: String,
    pub size: u64,
}

impl Wanted {
    pub fn of(asset: &Asset) -> Result<Self, ManifestError> {
        Ok(Self { url: asset.url.clone(), sha256: asset.sha256()?.to_owned(), size: asset.size })
    }

    /// Its name among what was downloaded.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or(&self.url)
    }
}

/// The longest download, however steadily it trickles.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const REDIRECTS: usize = 5;
const SIGNATURE_LIMIT: u64 = 64 * 1024;
const RECONNECTS: u32 = 20;

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Url(address) => write!(f, "{address}"),
        }
    }
}

impl Source {
    /// A URL, a `file://` URL, a folder, or a manifest in one.
    pub fn parse(text: &str) -> Self {
        if is_address(text) {
            return Self::Url(Address::parse(text));
        }
        let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
        let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        Self::Folder(folder.canonicalize().unwrap_or_else(|_| folder.to_owned()))
    }

    /// With the secrets of an address, for a process of the same user to parse.
    pub fn whole(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Url(address) => address.whole(),
        }
    }

    /// Whether its address holds what nobody else may see.
    pub fn has_secret(&self) -> bool {
        matches!(self, Self::Url(address) if address.whole() != address.shown(""))
    }

    /// A file of it, for people.
    fn place(&self, name: &str) -> String {
        match self {
            Self::Folder(_) if is_address(name) => without_secrets(name),
            Self::Folder(folder) => folder.join(name).display().to_string(),
            Self::Url(address) => address.shown(name),
        }
    }

    fn request(&self, name: &str) -> String {
        match self {
            Self::Folder(_) => name.to_owned(),
            Self::Url(address) => address.request(name),
        }
    }

    /// The manifest, once its signature was found to be good.
    pub async fn manifest(&self, keys: &[String]) -> Result<Manifest, FetchError> {
        let place = self.place(MANIFEST);
        let text = self.read(MANIFEST, SIZE_LIMIT).await?;
        if is_page(&text) {
            return Err(FetchError::Page { place });
        }
        let name = format!("{MANIFEST}{SIGNATURE_SUFFIX}");
        let signature = self.read(&name, SIGNATURE_LIMIT).await.map_err(|error| match error {
            FetchError::Unreachable { place, reason } => FetchError::Unsigned { place, reason },
            FetchError::Absent { place } => FetchError::Unsigned { place, reason: "it is not there".to_owned() },
            FetchError::Status { place, status } => {
                FetchError::Unsigned { place, reason: format!("HTTP status {status}") }
            }
            other => other,
        })?;
        if is_page(&signature) {
            return Err(FetchError::Page { place: self.place(&name) });
        }
        signature::verify(keys, &text, &String::from_utf8_lossy(&signature))
            .map_err(|source| FetchError::Signature { place: place.clone(), source })?;
        Manifest::parse_at(&text, &place).map_err(|source| FetchError::Manifest { place, source })
    }

    /// A small file, whole.
    async fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let place = self.place(name);
        let unreachable = |reason: String| FetchError::Unreachable { place: place.clone(), reason };
        let mut bytes = Vec::new();
        match self {
            Self::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(|error| not_opened(&place, &error))?;
                file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| unreachable(error.to_string()))?;
            }
            Self::Url(_) => {
                let read = async {
                    let mut response = client()?.get(self.request(name)).send().await?.error_for_status()?;
                    while let Some(chunk) = response.chunk().await? {
                        bytes.extend_from_slice(&chunk);
                        if bytes.len() as u64 > limit {
                            break;
                        }
                    }
                    Ok(())
                };
                within(&place, read).await?;
            }
        }
        if bytes.len() as u64 > limit {
            return Err(FetchError::TooLarge { place, limit });
        }
        Ok(bytes)
    }

    /// Puts the file into `folder`, whole and as the manifest says, and returns its path. What is there already
    /// is not fetched again; what is there in part is gone on with.
    pub async fn fetch(&self, wanted: &Wanted, folder: &Path, reporter: &dyn Reporter) -> Result<PathBuf, FetchError> {
        let path = folder.join(wanted.name());
        let place = self.place(&wanted.url);
        if path.exists() && check(&path, wanted, &place).is_ok() {
            return Ok(path);
        }
        let part = folder.join(format!("{}.part", wanted.name()));
        let had = fs::metadata(&part).map(|meta| meta.len()).unwrap_or(0);
        let mut outcome =
            self.fetch_patiently(wanted, &part, reporter).await.and_then(|()| check(&part, wanted, &place));
        let is_other =
            matches!(outcome, Err(FetchError::Different { is_short: false, .. } | FetchError::TooLarge { .. }));
        if is_other && had > 0 {
            // The beginning was of something else.
            remove(&part)?;
            outcome = self.fetch_into(wanted, &part, reporter).await.and_then(|()| check(&part, wanted, &place));
        }
        if let Err(error) = outcome {
            // What is only short is gone on with the next time.
            if matches!(error, FetchError::Different { is_short: false, .. } | FetchError::TooLarge { .. }) {
                remove(&part)?;
            }
            return Err(error);
        }
        let write = |source| FetchError::Write { path: path.clone(), source };
        File::open(&part).and_then(|file| file.sync_all()).map_err(write)?;
        crate::sys::files::rename_durably(&part, &path).map_err(write)?;
        Ok(path)
    }

    /// A connection that breaks off is made again while there is something new each time.
    async fn fetch_patiently(&self, wanted: &Wanted, part: &Path, reporter: &dyn Reporter) -> Result<(), FetchError> {
        let begun = Instant::now();
        let length = || fs::metadata(part).map(|meta| meta.len()).unwrap_or(0);
        for _ in 0..RECONNECTS {
            let before = length();
            match self.fetch_into(wanted, part, reporter).await {
                Err(FetchError::Unreachable { .. }) if length() > before && begun.elapsed() < TOTAL_TIMEOUT => {}
                settled => return settled,
            }
        }
        self.fetch_into(wanted, part, reporter).await
    }

    async fn fetch_into(&self, wanted: &Wanted, part: &Path, reporter: &dyn Reporter) -> Result<(), FetchError> {
        let place = self.place(&wanted.url);
        let what = format!("Fetching {}", wanted.name());
        let mut target = Target::open(part, wanted, &place)?;
        let told = |done: u64| reporter.report(Progress::Bytes { what: what.clone(), done, total: wanted.size });
        let unreachable = |reason: String| FetchError::Unreachable { place: place.clone(), reason };
        match self {
            Self::Folder(folder) if !is_address(&wanted.url) => {
                let mut file = File::open(folder.join(&wanted.url)).map_err(|error| not_opened(&place, &error))?;
                target.restart()?;
                let mut buffer = vec![0; 256 * 1024];
                loop {
                    let length = file.read(&mut buffer).map_err(|error| unreachable(error.to_string()))?;
                    if length == 0 {
                        return Ok(());
                    }
                    target.write(&buffer[..length])?;
                    told(target.length);
                }
            }
            _ => {
                if target.length == wanted.size {
                    return Ok(());
                }
                let mut fault = None;
                let read = async {
                    let client = client()?;
                    let url = self.request(&wanted.url);
                    let mut response = match target.length {
                        0 => client.get(&url).send().await?,
                        from => {
                            let part = client.get(&url).header(RANGE, format!("bytes={from}-")).send().await?;
                            match answer_to_range(part.status(), part.headers().get(CONTENT_RANGE), from, wanted.size) {
                                RangeAnswer::Rest => part,
                                RangeAnswer::Whole => {
                                    if let Err(error) = target.restart() {
                                        fault = Some(error);
                                        return Ok(());
                                    }
                                    part
                                }
                                // It cannot serve parts, whatever it says of them.
                                RangeAnswer::Useless => {
                                    if let Err(error) = target.restart() {
                                        fault = Some(error);
                                        return Ok(());
                                    }
                                    client.get(&url).send().await?
                                }
                                RangeAnswer::Failed => part,
                            }
                        }
                    }
                    .error_for_status()?;
                    while let Some(chunk) = response.chunk().await? {
                        if let Err(error) = target.write(&chunk) {
                            fault = Some(error);
                            return Ok(());
                        }
                        told(target.length);
                    }
                    Ok(())
                };
                within(&place, read).await?;
                fault.map_or(Ok(()), Err)
            }
        }
    }
}

/// A file that grows, up to the size that the manifest says.
struct Target<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    limit: u64,
    place: &'a str,
}

impl<'a> Target<'a> {
    fn open(path: &'a Path, wanted: &Wanted, place: &'a str) -> Result<Self, FetchError> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let sized = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = sized.map_err(|source| FetchError::Write { path: path.to_owned(), source })?;
        let mut target = Self { path, file, length, limit: wanted.size, place };
        if length > wanted.size {
            target.restart()?;
        }
        Ok(target)
    }

    fn restart(&mut self) -> Result<(), FetchError> {
        self.length = 0;
        self.file.set_len(0).map_err(|source| FetchError::Write { path: self.path.to_owned(), source })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.length += bytes.len() as u64;
        if self.length > self.limit {
            return Err(FetchError::TooLarge { place: self.place.to_owned(), limit: self.limit });
        }
        self.file.write_all(bytes).map_err(|source| FetchError::Write { path: self.path.to_owned(), source })
    }
}

fn remove(path: &Path) -> Result<(), FetchError> {
    crate::sys::files::remove_any(path).map_err(|source| FetchError::Write { path: path.to_owned(), source })
}

fn not_opened(place: &str, error: &io::Error) -> FetchError {
    let place = place.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => FetchError::Absent { place },
        _ => FetchError::Unreachable { place, reason: error.to_string() },
    }
}

/// Compares what was fetched.
fn check(path: &Path, wanted: &Wanted, place: &str) -> Result<(), FetchError> {
    let read =
        |source: io::Error| FetchError::Unreachable { place: path.display().to_string(), reason: source.to_string() };
    let mut file = File::open(path).map_err(read)?;
    let mut hash = Sha256::new();
    let mut start = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let length = file.read(&mut buffer).map_err(read)?;
        if length == 0 {
            break;
        }
        if start.is_empty() {
            start.extend_from_slice(&buffer[..length.min(32)]);
        }
        size += length as u64;
        hash.update(&buffer[..length]);
    }
    let found = hex::encode(hash.finalize());
    if found == wanted.sha256 && size == wanted.size {
        return Ok(());
    }
    let is_page = is_page(&start);
    let is_short = size < wanted.size && !is_page;
    let found = match size {
        _ if is_page => "a web page came instead".to_owned(),
        _ if is_short => format!("it ends after {size} of {} bytes", wanted.size),
        _ => format!("its sha256 is {found}, expected {}", wanted.sha256),
    };
    Err(FetchError::Different { place: place.to_owned(), found, is_short })
}

fn is_page(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'<')
}

fn client() -> reqwest::Result<reqwest::Client> {
    web::client().redirect(reqwest::redirect::Policy::limited(REDIRECTS)).build()
}

async fn within(place: &str, work: impl Future<Output = reqwest::Result<()>>) -> Result<(), FetchError> {
    let place = place.to_owned();
    match tokio::time::timeout(TOTAL_TIMEOUT, work).await {
        Ok(Err(error)) if matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE)) => {
            Err(FetchError::Absent { place })
        }
        Ok(Err(error)) if error.status().is_some() => {
            Err(FetchError::Status { place, status: error.status().map_or(0, |status| status.as_u16()) })
        }
        Ok(done) => done.map_err(|error| FetchError::Unreachable { place, reason: chain(&error.without_url()) }),
        Err(_) => {
            let reason = format!("not finished after {} minutes", TOTAL_TIMEOUT.as_secs() / 60);
            Err(FetchError::Unreachable { place, reason })
        }
    }
}
