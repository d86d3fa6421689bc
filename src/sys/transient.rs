//! Errors of the operating system that pass without a change to the request: a full disk, no free process, descriptor or
//! memory, a device that fails for a moment. Work that meets one waits and is tried again; it has not failed.

use super::spawn::SpawnError;
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
    // A file system that is mounted read-only after an error of its device.
    Errno::EROFS,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
    Errno::ETXTBSY,
];

/// True for an error that may be gone at the next try. Also for a `SpawnError` inside the error.
pub fn is_transient(error: &io::Error) -> bool {
    if let Some(code) = error.raw_os_error() {
        return TRANSIENT.contains(&Errno::from_raw(code));
    }
    let spawn = error.get_ref().and_then(|inner| inner.downcast_ref::<SpawnError>());
    spawn.and_then(SpawnError::source_error).is_some_and(is_transient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disks_and_missing_processes_pass_and_missing_files_do_not() {
        for code in [Errno::ENOSPC, Errno::EAGAIN, Errno::ENFILE, Errno::EIO, Errno::ENOMEM] {
            assert!(is_transient(&io::Error::from_raw_os_error(code as i32)), "{code}");
            let spawn = SpawnError::Fork(io::Error::from_raw_os_error(code as i32));
            assert!(is_transient(&io::Error::other(spawn)), "{code}");
        }
        for code in [Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::ENOSYS] {
            assert!(!is_transient(&io::Error::from_raw_os_error(code as i32)), "{code}");
        }
        assert!(!is_transient(&io::Error::other("a reason in words")));
    }
}
