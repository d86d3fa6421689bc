//! The binary installs itself: `versions/<version>/leoflow` and three links in `bin/`.

use crate::home::Home;
use crate::sys::{checkpoint, env_vars, files};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One executable, three names.
pub const NAMES: [&str; 3] = ["leoflow", "leoflow-server", "leoflow-agent"];

#[derive(Debug, thiserror::Error)]
#[error("cannot install {path}: {source}")]
pub struct InstallError {
    path: PathBuf,
    source: io::Error,
}

/// The version that `bin/leoflow` leads to; `None` when not all of the links lead somewhere.
pub fn installed_version(home: &Home) -> Option<String> {
    let complete = NAMES.iter().all(|name| home.bin().join(name).is_file());
    linked_version(home).filter(|_| complete)
}

/// The version that one of the links names, whether it is there or not.
pub fn linked_version(home: &Home) -> Option<String> {
    NAMES.iter().find_map(|name| {
        let target = fs::read_link(home.bin().join(name)).ok()?;
        Some(target.parent()?.file_name()?.to_str()?.to_owned())
    })
}

/// Whether `versions/<version>/leoflow` is the running program, byte for byte.
pub fn is_installed(home: &Home, version: &str) -> bool {
    let place = home.versions().join(version).join(NAMES[0]);
    env_vars::current_exe().is_ok_and(|own| own == place || same_content(&own, &place).unwrap_or(false))
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

/// Copies the running program into the home and points the links at it.
pub fn install(home: &Home, version: &str) -> Result<(), InstallError> {
    let place = home.versions().join(version).join(NAMES[0]);
    let failed = |source| InstallError { path: place.clone(), source };
    if !is_installed(home, version) {
        copy(&place).map_err(failed)?;
    }
    checkpoint("binary.copied");
    link(home, version).map_err(|source| InstallError { path: home.bin(), source })
}

fn copy(place: &Path) -> io::Result<()> {
    let folder = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    files::create_private_dir(folder)?;
    let neighbour = files::temporary_neighbour(place);
    let copied = fs::copy(env_vars::current_exe()?, &neighbour).and_then(|_| {
        fs::set_permissions(&neighbour, Permissions::from_mode(0o755))?;
        File::open(&neighbour)?.sync_all()?;
        files::rename_durably(&neighbour, place)
    });
    if copied.is_err() {
        // Incomplete and ours; the error that matters is already in hand.
        let _ = files::remove_any(&neighbour);
    }
    copied
}

/// Points the links in `bin/` at an installed version.
pub fn link(home: &Home, version: &str) -> io::Result<()> {
    files::create_private_dir(&home.bin())?;
    let target = Path::new("../versions").join(version).join(NAMES[0]);
    for name in NAMES {
        files::replace_link(&target, &home.bin().join(name))?;
    }
    Ok(())
}
