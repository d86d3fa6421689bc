//! File descriptors that a process keeps for the next program, or takes from the previous one.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The first descriptor passed by systemd's protocol, sd_listen_fds(3).
pub const FIRST_PASSED: RawFd = 3;

/// Marks all descriptors from the number `first` on as close-on-exec, including those that this process inherited
/// unintentionally.
pub(crate) fn close_at_exec_from(first: RawFd) {
    #[cfg(target_os = "linux")]
    if !crate::sys::is_portable() {
        use nix::libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, c_uint, syscall};
        // SAFETY: the system call gets only numbers. Kernels before 5.11 do not support it; there, inherited descriptors
        // stay open.
        unsafe { syscall(SYS_close_range, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        return;
    }
    close_each_at_exec_from(first);
}

/// Tries the numbers one by one, up to the limit of descriptors; async-signal safe.
fn close_each_at_exec_from(first: RawFd) {
    // The limit may be a thousand million, or -1 for none.
    const MOST: RawFd = 65_536;
    // SAFETY: sysconf(3) and fcntl(2) on numbers; those that are not open are errors without an effect.
    unsafe {
        let limit = nix::libc::sysconf(nix::libc::_SC_OPEN_MAX);
        for number in first..RawFd::try_from(limit).ok().filter(|limit| *limit >= 0).unwrap_or(MOST).min(MOST) {
            nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC);
        }
    }
}

/// Takes over a descriptor that the previous program left open at `number`; fails if it is not open. It is closed at
/// the next exec. Each number may be taken only once.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a number; if it is not open, the next call fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and the previous program passed it to us; nothing else in this process uses the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes the descriptors that the parent passed by systemd's protocol, with their names, sd_listen_fds(3). `names` is
/// the value of `LISTEN_FDNAMES`. May be called only once, because the returned values own the descriptors.
pub(crate) fn take_passed(count: usize, names: &str) -> io::Result<Vec<(String, OwnedFd)>> {
    let names = names.split(':').chain(std::iter::repeat(""));
    let take = |(number, name): (RawFd, &str)| Ok((name.to_owned(), take_inherited(number)?));
    (FIRST_PASSED..).zip(names).take(count).map(take).collect()
}
