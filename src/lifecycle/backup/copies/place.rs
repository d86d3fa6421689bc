//! A place that backups are copied to, of any kind.

use super::CopyError;
use super::files::Entry;
use super::folder::Folder;
use super::s3::S3;
use super::sftp::Sftp;
use crate::backup::format::archive::Hashed;
use crate::backup::format::manifest::Sha256Hex;
use leoflow_base::config::{CopyAddress, CopyPlace};
use leoflow_base::home::backup_names::is_archive_name;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub enum Place {
    Folder(Folder),
    S3(S3),
    Sftp(Sftp),
}

impl Place {
    /// Prepares access; most errors come with the first request. `scratch` is a folder for temporary files.
    pub fn open(place: &CopyPlace, scratch: &Path) -> Result<Self, CopyError> {
        Ok(match &place.to {
            CopyAddress::Folder(path) => Self::Folder(Folder::open(path)?),
            CopyAddress::S3 { bucket, prefix, endpoint, region } => {
                let keys = (place.access_key.as_ref(), place.secret_key.as_ref());
                Self::S3(S3::open(bucket, prefix, endpoint.as_deref(), region.as_deref(), keys)?)
            }
            CopyAddress::Sftp { user, host, port, path } => {
                Self::Sftp(Sftp::new(user.as_deref(), host, *port, path, scratch))
            }
        })
    }

    /// Lists the backups.
    pub async fn list(&self) -> Result<Vec<Entry>, CopyError> {
        let mut entries = match self {
            Self::Folder(folder) => folder.list()?,
            Self::S3(s3) => s3.list().await?,
            Self::Sftp(sftp) => sftp.list()?,
        };
        entries.retain(|entry| is_archive_name(&entry.name));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Writes a copy of `file`; returns the hash of the bytes that were sent.
    pub async fn put(&self, file: &Path, name: &str) -> Result<Sha256Hex, CopyError> {
        match self {
            Self::Folder(folder) => folder.put(file, name),
            Self::S3(s3) => s3.put(file, name).await,
            Self::Sftp(sftp) => sftp.put(file, name),
        }
    }

    /// Reads a copy and returns its hash.
    pub async fn hash(&self, name: &str) -> Result<Sha256Hex, CopyError> {
        let mut hashed = Hashed::new(io::sink());
        self.read(name, &mut hashed).await?;
        Ok(hashed.sha256())
    }

    /// Writes a copy to a new file, which only this user may read.
    pub async fn fetch(&self, name: &str, to: &Path) -> Result<(), CopyError> {
        let write = |source| CopyError::File { path: to.to_owned(), source };
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(to).map_err(write)?;
        self.read(name, &mut file).await?;
        file.sync_all().map_err(write)
    }

    async fn read(&self, name: &str, sink: &mut impl Write) -> Result<(), CopyError> {
        match self {
            Self::Folder(folder) => folder.read(name, sink),
            Self::S3(s3) => s3.read(name, sink).await,
            Self::Sftp(sftp) => sftp.read(name, sink),
        }
    }

    pub async fn remove(&self, name: &str) -> Result<(), CopyError> {
        match self {
            Self::Folder(folder) => folder.remove(name),
            Self::S3(s3) => s3.remove(name).await,
            Self::Sftp(sftp) => sftp.remove(name),
        }
    }
}
