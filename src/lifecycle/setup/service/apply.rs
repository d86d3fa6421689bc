//! Installs and removes the service. Each step is idempotent.

use super::{LIMIT, Service, installed};
use crate::setup::receipt::{Receipt, ReceiptError};
use leoflow_base::home::Home;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot read {path}, so it is not replaced: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}: {source}")]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

/// Records the service's file in the receipt, then writes it: if a kill falls between, uninstall ignores the missing
/// file. Copies an existing file with other settings first, because the user may have edited it; returns the copy.
pub fn write(home: &Home, service: &Service) -> Result<Option<PathBuf>, ServiceError> {
    record_file(home, Some(service.file.clone()))?;
    checkpoint("service.receipt");
    let failed = |source| ServiceError::Write { path: service.file.clone(), source };
    let copy = copy_replaced(service)?;
    fs::create_dir_all(service.file.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    files::write_atomic(&service.file, service.definition.text().as_bytes(), 0o600).map_err(failed)?;
    checkpoint("service.file");
    Ok(copy)
}

/// Copies the present file if its settings differ from those that are written over it. A file that cannot be copied is
/// not replaced.
fn copy_replaced(service: &Service) -> Result<Option<PathBuf>, ServiceError> {
    let read_error = |source| ServiceError::Read { path: service.file.clone(), source };
    let Some(bytes) = files::read_regular(&service.file, LIMIT).map_err(read_error)? else { return Ok(None) };
    if str::from_utf8(&bytes).is_ok_and(|text| service.definition.is_same(text)) {
        return Ok(None);
    }
    let copies = copies(&service.file);
    let is_same = |path: &&PathBuf| matches!(files::read_regular(path, LIMIT), Ok(Some(old)) if old == bytes);
    if let Some(same) = copies.iter().find(is_same) {
        return Ok(Some(same.clone()));
    }
    let name = |number: usize| append(&service.file, &format!("{COPY_SUFFIX}{number}"));
    let copy = (1..).map(name).find(|path| !copies.contains(path)).unwrap_or_else(|| name(0));
    let failed = |source| ServiceError::Write { path: copy.clone(), source };
    files::write_atomic(&copy, &bytes, 0o600).map_err(failed)?;
    Ok(Some(copy))
}

/// Suffix of copies, followed by a number. Service managers ignore files with unknown extensions.
const COPY_SUFFIX: &str = ".replaced-";

/// The copies of a service's file, sorted.
fn copies(file: &Path) -> Vec<PathBuf> {
    let start = append(file, COPY_SUFFIX);
    let folder = fs::read_dir(file.parent().unwrap_or(Path::new("/"))).into_iter().flatten().flatten();
    let is_copy = |path: &PathBuf| path.as_os_str().as_bytes().starts_with(start.as_os_str().as_bytes());
    let mut copies: Vec<PathBuf> = folder.map(|entry| entry.path()).filter(is_copy).collect();
    copies.sort();
    copies
}

fn append(path: &Path, text: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(text);
    name.into()
}

/// Disables the service and removes its file, at the path in the receipt, with the copies of replaced files. Does not
/// stop the service. Returns false if none was installed.
pub fn remove(home: &Home) -> Result<bool, ServiceError> {
    let installed = installed(home)?;
    if let Some(service) = &installed {
        // An unreachable or missing manager must not prevent an uninstall.
        let disabled = service.disable();
        let failed = |source| ServiceError::Remove { path: service.file.clone(), source };
        if disabled.is_err() {
            let folder = service.file.parent().unwrap_or(Path::new("/")).join("default.target.wants");
            files::remove_any(&folder.join(service.unit())).map_err(failed)?;
        }
        checkpoint("service.disabled");
        for copy in copies(&service.file) {
            files::remove_any(&copy).map_err(failed)?;
        }
        files::remove_any(&service.file).map_err(failed)?;
        checkpoint("service.removed");
        let _ignored = service.reload();
    }
    record_file(home, None)?;
    Ok(installed.is_some())
}

/// Records the service's file in the receipt; for `None`, removes the record.
fn record_file(home: &Home, file: Option<PathBuf>) -> Result<(), ServiceError> {
    if let Some(receipt) = Receipt::load(home)?.filter(|receipt| receipt.service != file) {
        Receipt { service: file, ..receipt }.write(home)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::service::{Definition, Manager};

    #[test]
    fn an_edited_file_is_copied_before_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let definition = Definition {
            manager: Manager::Systemd,
            name: "leoflow".to_owned(),
            home: home.root().to_owned(),
            program: home.bin().join("leoflow"),
            search_path: None,
        };
        let file = folder.path().join("leoflow.service");
        let service = Service { definition, file: file.clone() };
        assert_eq!(write(&home, &service).unwrap(), None);
        assert_eq!(write(&home, &service).unwrap(), None, "the same settings");
        let ours = fs::read_to_string(&file).unwrap();
        for (edit, number) in [("MemoryMax=2G", 1), ("MemoryMax=3G", 2), ("MemoryMax=2G", 1)] {
            let edited = ours.replace("[Service]", &format!("[Service]\n{edit}"));
            fs::write(&file, &edited).unwrap();
            let copy = write(&home, &service).unwrap().unwrap();
            assert_eq!(copy, folder.path().join(format!("leoflow.service.replaced-{number}")));
            assert_eq!(
                (fs::read_to_string(&copy).unwrap(), fs::read_to_string(&file).unwrap()),
                (edited, ours.clone())
            );
        }
        assert_eq!(copies(&file).len(), 2);
        // A long file that is not UTF-8 is copied too.
        let long = [ours.as_bytes(), "# comment\n".repeat(10_000).as_bytes(), b"# \xff\n"].concat();
        fs::write(&file, &long).unwrap();
        let copy = write(&home, &service).unwrap().unwrap();
        assert_eq!((fs::read(&copy).unwrap(), fs::read_to_string(&file).unwrap()), (long, ours));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(write(&home, &service), Err(ServiceError::Read { .. })));
    }
}
