//! Installing and removing the service. Each step can be done again.

use super::{Service, Unavailable, installed};
use crate::home::Home;
use crate::setup::receipt::{Receipt, ReceiptError};
use crate::sys::{checkpoint, files};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}: {source}")]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Manager(#[from] Unavailable),
}

/// The receipt first: killed after it, a file is named that is not there, which uninstall leaves as it is.
pub fn write(home: &Home, service: &Service) -> Result<(), ServiceError> {
    note(home, Some(service.file.clone()))?;
    checkpoint("service.receipt");
    let failed = |source| ServiceError::Write { path: service.file.clone(), source };
    fs::create_dir_all(service.file.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    files::write_atomic(&service.file, service.definition.text().as_bytes(), 0o600).map_err(failed)?;
    checkpoint("service.file");
    Ok(())
}

pub fn load(service: &Service) -> Result<(), ServiceError> {
    Ok(service.manager.reload()?)
}

pub fn enable(service: &Service) -> Result<(), ServiceError> {
    service.manager.enable()?;
    checkpoint("service.enabled");
    Ok(())
}

/// Comes back when Leoflow is ready.
pub fn start(service: &Service) -> Result<(), ServiceError> {
    Ok(service.manager.start()?)
}

/// Removes the file that the receipt names, and no other's, and has the manager forget it. What it runs is ended before, by
/// the caller. Returns whether there was one.
pub fn remove(home: &Home) -> Result<bool, ServiceError> {
    let installed = installed(home)?;
    if let Some(service) = &installed {
        // It may not be reached, or be gone, while the file is there: that must not keep anybody from an uninstall.
        let disabled = service.manager.disable();
        let failed = |source| ServiceError::Remove { path: service.file.clone(), source };
        if disabled.is_err() {
            let folder = service.file.parent().unwrap_or(Path::new("/")).join("default.target.wants");
            files::remove_any(&folder.join(service.definition.file_name())).map_err(failed)?;
        }
        checkpoint("service.disabled");
        files::remove_any(&service.file).map_err(failed)?;
        checkpoint("service.removed");
        let _not_there = service.manager.reload();
    }
    note(home, None)?;
    Ok(installed.is_some())
}

fn note(home: &Home, file: Option<PathBuf>) -> Result<(), ServiceError> {
    if let Some(receipt) = Receipt::load(home)?.filter(|receipt| receipt.service != file) {
        Receipt { service: file, ..receipt }.write(home)?;
    }
    Ok(())
}
