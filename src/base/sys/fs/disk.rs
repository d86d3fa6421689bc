//! File systems and their free space.

use std::io;
use std::path::Path;

/// True when two paths, or their nearest existing parents, are on the same file system.
pub fn same_file_system(left: &Path, right: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| {
        let nearest = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        std::fs::metadata(nearest).map(|meta| meta.dev())
    };
    Ok(device(left)? == device(right)?)
}

/// Bytes that an unprivileged user may still write on the file system of `path`, or of its nearest
/// existing parent.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let mut probe = path;
    loop {
        match nix::sys::statvfs::statvfs(probe) {
            Ok(stat) => return Ok(stat.blocks_available() * stat.fragment_size()),
            Err(nix::Error::ENOENT) => match probe.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => probe = parent,
                _ => return Err(nix::Error::ENOENT.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}
