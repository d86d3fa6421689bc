//! Downloads and unpacks wheels of pinned versions: uv, and the support packages.

use super::io_error::{IoError, io};
use leoflow_components::archive::{self, ArchiveError};
use leoflow_components::wheel;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why wheels cannot be installed; each text is a message for the user.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    #[error("LEOFLOW_PYTHON_PACKAGES=none disables the packages")]
    Disabled,
    #[error("no wheel of uv for {0}")]
    Platform(String),
    /// A failed download, or another sha256 than the pinned one.
    #[error(transparent)]
    Unavailable(#[from] wheel::DownloadError),
    #[error("no wheel of {name} {version} in {}", folder.display())]
    Missing { name: &'static str, version: &'static str, folder: PathBuf },
    #[error("the uv in the wheel does not run here")]
    UnusableUv,
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: {source}", path.display())]
    Archive { path: PathBuf, source: ArchiveError },
}

/// Downloads packages, in pip's notation, for these platform tags from the index that pip is configured for into a new
/// folder.
pub fn download(packages: &[&str], platforms: &[&str], folder: &Path, limit: Duration) -> Result<(), WheelError> {
    std::fs::create_dir(folder).map_err(io(folder.display()))?;
    Ok(wheel::download(&wheel::Wheels { packages, platforms }, folder, limit)?)
}

/// Unpacks a wheel into `folder`, in addition to the folder's content.
pub fn unpack(file: &Path, folder: &Path) -> Result<(), WheelError> {
    std::fs::create_dir_all(folder).map_err(io(folder.display()))?;
    archive::unpack_wheel(file, folder, |_| true)
        .map_err(|source| WheelError::Archive { path: file.to_owned(), source })
}
