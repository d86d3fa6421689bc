//! A place that backups are copied to, of any kind.

use super::CopyError;
pub use super::files::Entry;
use super::files::{hash_of, in_file};
use super::folder::Folder;
use super::s3::S3;
use super::sftp::Sftp;
use crate::backup::format::archive::Hashed;
use leoflow_base::config::{CopyAddress, CopyPlace};
use leoflow_base::home::backup_names::is_archive_name;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub enum Place {
    Folder(Folder),
    S3(S3),
    Sftp(Sftp),
}

impl Place {
    /// Prepares access; most errors come with the first request.
    pub fn open(place: &CopyPlace) -> Result<Self, CopyError> {
        Ok(match &place.to {
            CopyAddress::Folder(path) => Self::Folder(Folder::open(path)?),
            CopyAddress::S3 { bucket, prefix, endpoint, region } => {
                let keys = (place.access_key.as_ref(), place.secret_key.as_ref());
                Self::S3(S3::open(bucket, prefix, endpoint.as_deref(), region.as_deref(), keys)?)
            }
            CopyAddress::Sftp { user, host, port, path } => Self::Sftp(Sftp::new(user.as_deref(), host, *port, path)),
        })
    }

    /// Lists the backups.
    pub async fn list(&self) -> Result<Vec<Entry>, CopyError> {
        let mut entries = match self {
            Self::Folder(folder) => folder.list()?,
            Self::S3(s3) => s3.list().await?,
            Self::Sftp(sftp) => sftp.list()?,
        };
        // A server could send names that lead to other folders here.
        let is_safe = |name: &str| !name.contains('/') && !name.chars().any(char::is_control);
        entries.retain(|entry| is_archive_name(&entry.name) && is_safe(&entry.name));
        Ok(entries)
    }

    /// Writes a copy of `file`; returns the hash of the bytes that were sent.
    pub async fn put(&self, file: &Path, name: &str) -> Result<String, CopyError> {
        match self {
            Self::Folder(folder) => folder.put(file, name),
            Self::S3(s3) => s3.put(file, name).await,
            Self::Sftp(sftp) => sftp.put(file, name),
        }
    }

    /// Reads a copy of this size and returns its hash. `scratch` is a new file, for a place that cannot be read as a
    /// stream.
    pub async fn hash(&self, entry: &Entry, scratch: &Path) -> Result<String, CopyError> {
        let mut hashed = Hashed::new(io::sink());
        match self {
            Self::Folder(folder) => folder.read(&entry.name, &mut hashed)?,
            Self::S3(s3) => s3.read(&entry.name, &mut hashed).await?,
            Self::Sftp(sftp) => return sftp.hash(entry, scratch),
        }
        Ok(hash_of(hashed))
    }

    /// Writes a copy to a new file, which only this user may read.
    pub async fn fetch(&self, entry: &Entry, to: &Path) -> Result<(), CopyError> {
        let create = || File::options().write(true).create_new(true).mode(0o600).open(to).map_err(in_file(to));
        match self {
            Self::Folder(folder) => folder.read(&entry.name, &mut create()?),
            Self::S3(s3) => s3.read(&entry.name, &mut create()?).await,
            Self::Sftp(sftp) => sftp.fetch(entry, to),
        }
    }

    pub async fn remove(&self, name: &str) -> Result<(), CopyError> {
        match self {
            Self::Folder(folder) => folder.remove(name),
            Self::S3(s3) => s3.remove(name).await,
            Self::Sftp(sftp) => sftp.remove(name),
        }
    }

    /// Removes what a killed process has left of an upload of this name. A bucket's own rules remove parts of uploads.
    pub(super) fn remove_part(&self, name: &str) -> Result<(), CopyError> {
        match self {
            Self::Folder(folder) => folder.remove_part(name),
            Self::S3(_) => Ok(()),
            Self::Sftp(sftp) => sftp.remove_part(name),
        }
    }
}
