//! Installs the running binary: `versions/<version>/leoflow` and three links in `bin/`.

use leoflow_base::home::{Home, shared};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{checkpoint, env_vars};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Names of the links to the one executable.
pub const NAMES: [&str; 3] = ["leoflow", "leoflow-server", "leoflow-agent"];

#[derive(Debug, thiserror::Error)]
#[error("cannot install {path}: {source}")]
pub struct InstallError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// The version that `bin/leoflow` points to; `None` unless all links point to a file.
pub fn installed_version(home: &Home) -> Option<String> {
    let is_complete = NAMES.iter().all(|name| home.bin().join(name).is_file());
    linked_version(home).filter(|_| is_complete)
}

/// The version that one of the links points to, even if that version does not exist.
pub fn linked_version(home: &Home) -> Option<String> {
    NAMES.iter().find_map(|name| {
        let target = fs::read_link(home.bin().join(name)).ok()?;
        Some(target.parent()?.file_name()?.to_str()?.to_owned())
    })
}

/// True when `versions/<version>/leoflow` is identical to the running program.
pub fn is_installed(home: &Home, version: &str) -> bool {
    let target = home.versions().join(version).join(NAMES[0]);
    env_vars::current_exe().is_ok_and(|own| own == target || same_content(&own, &target).unwrap_or(false))
}

fn same_content(first: &Path, other: &Path) -> io::Result<bool> {
    let (mut first, mut other) = (File::open(first)?, File::open(other)?);
    if first.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
    loop {
        let length = first.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

/// Copies the running program into the home and links it.
pub fn install(home: &Home, version: &str) -> Result<(), InstallError> {
    add_version(home, version)?;
    checkpoint("binary.copied");
    link(home, version).map_err(|source| InstallError { path: home.bin(), source })
}

/// Copies the running program to `versions/<version>/`, unless it is there.
pub(crate) fn add_version(home: &Home, version: &str) -> Result<(), InstallError> {
    if is_installed(home, version) {
        return Ok(());
    }
    let target = home.versions().join(version).join(NAMES[0]);
    copy(&target).map_err(|source| InstallError { path: target, source })
}

/// Copies the running program to `target`.
fn copy(target: &Path) -> io::Result<()> {
    let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    files::create_private_dir(folder)?;
    let temporary = files::temporary_neighbour(target);
    // A killed setup with this process id may have left one.
    files::remove_any(&temporary)?;
    let own = env_vars::current_exe()?;
    let copied = match shared::is_installed_program(&own) {
        true => shared::link_file(&own, &temporary),
        false => fs::copy(&own, &temporary).map(drop),
    };
    let copied = copied.and_then(|()| {
        fs::set_permissions(&temporary, Permissions::from_mode(0o755))?;
        files::sync(&File::open(&temporary)?)?;
        files::rename_durably(&temporary, target)
    });
    if copied.is_err() {
        // The caller reports the first error, so one from the cleanup is ignored.
        let _ = files::remove_any(&temporary);
    }
    copied
}

/// Makes `version` the installed release: points the links in `bin/` at `versions/<version>`, which must exist.
pub fn link(home: &Home, version: &str) -> io::Result<()> {
    files::create_private_dir(&home.bin())?;
    let target = Path::new("../versions").join(version).join(NAMES[0]);
    for name in NAMES {
        files::replace_link(&target, &home.bin().join(name))?;
    }
    Ok(())
}
