//! Installs and removes the service. Each step is idempotent.

use super::{Service, Unavailable, installed};
use crate::setup::receipt::{Receipt, ReceiptError};
use leoflow_base::home::Home;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
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

/// Writes the service's file, after the receipt: after a kill the receipt may list a missing file, which uninstall
/// ignores.
pub fn write(home: &Home, service: &Service) -> Result<(), ServiceError> {
    record_file(home, Some(service.file.clone()))?;
    checkpoint("service.receipt");
    let failed = |source| ServiceError::Write { path: service.file.clone(), source };
    fs::create_dir_all(service.file.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    files::write_atomic(&service.file, service.definition.text().as_bytes(), 0o600).map_err(failed)?;
    checkpoint("service.file");
    Ok(())
}

/// Makes the service manager read the file.
pub fn load(service: &Service) -> Result<(), ServiceError> {
    Ok(service.manager.reload()?)
}

/// Enables the start at login.
pub fn enable(service: &Service) -> Result<(), ServiceError> {
    service.manager.enable()?;
    checkpoint("service.enabled");
    Ok(())
}

/// Starts the service; returns when Leoflow is ready.
pub fn start(service: &Service) -> Result<(), ServiceError> {
    Ok(service.manager.start()?)
}

/// Removes the file listed in the receipt and disables the service. The caller has stopped it. Returns false if there
/// was none.
pub fn remove(home: &Home) -> Result<bool, ServiceError> {
    let installed = installed(home)?;
    if let Some(service) = &installed {
        // An unreachable or missing manager must not prevent an uninstall.
        let disabled = service.manager.disable();
        let failed = |source| ServiceError::Remove { path: service.file.clone(), source };
        if disabled.is_err() {
            let folder = service.file.parent().unwrap_or(Path::new("/")).join("default.target.wants");
            files::remove_any(&folder.join(service.definition.file_name())).map_err(failed)?;
        }
        checkpoint("service.disabled");
        files::remove_any(&service.file).map_err(failed)?;
        checkpoint("service.removed");
        let _ignored = service.manager.reload();
    }
    record_file(home, None)?;
    Ok(installed.is_some())
}

/// Records the service's file in the receipt.
fn record_file(home: &Home, file: Option<PathBuf>) -> Result<(), ServiceError> {
    if let Some(receipt) = Receipt::load(home)?.filter(|receipt| receipt.service != file) {
        Receipt { service: file, ..receipt }.write(home)?;
    }
    Ok(())
}
