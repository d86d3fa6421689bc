//! Transient errors of the operating system, which may disappear without a change of the request: a full disk, no free
//! process, descriptor or memory, a temporary device error. Work that meets one is retried instead of failing.

use super::process::spawn::SpawnError;
use nix::errno::Errno;
use std::io;

const TRANSIENT: &[Errno] = &[
    Errno::EAGAIN,
    Errno::EBUSY,
    Errno::EDQUOT,
    Errno::EINTR,
    Errno::EIO,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOBUFS,
    Errno::ENOLCK,
    Errno::ENOMEM,
    Errno::ENOSPC,
    // A file system remounted read-only after a device error.
    Errno::EROFS,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
    Errno::ETXTBSY,
];

/// True for an error that may disappear on a retry, also for one inside a `SpawnError`.
pub fn is_transient(error: &io::Error) -> bool {
    if let Some(code) = error.raw_os_error() {
        return TRANSIENT.contains(&Errno::from_raw(code));
    }
    let spawn = error.get_ref().and_then(|source| source.downcast_ref::<SpawnError>());
    spawn.and_then(SpawnError::source_error).is_some_and(is_transient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disks_are_transient_and_missing_files_are_not() {
        for code in [Errno::ENOSPC, Errno::EAGAIN, Errno::ENFILE, Errno::EIO, Errno::ENOMEM] {
            assert!(is_transient(&io::Error::from_raw_os_error(code as i32)), "{code}");
            let spawn = SpawnError::SystemLimit(io::Error::from_raw_os_error(code as i32));
            assert!(is_transient(&io::Error::other(spawn)), "{code}");
        }
        for code in [Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::ENOSYS] {
            assert!(!is_transient(&io::Error::from_raw_os_error(code as i32)), "{code}");
        }
        assert!(!is_transient(&io::Error::other("a reason in words")));
    }
}
