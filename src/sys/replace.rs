//! Executing another program in this very process, with some descriptors left open for it.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Executes `program`, called `called`, in our place; returns only when that fails, with everything as it
/// was. Descriptors in `kept` keep their numbers; all others are closed at the exec, as far as they are
/// marked so. Must be called from the main thread: the kernel sends children their parent's death signal
/// when the thread that started them ends, and of all threads only the one that executes lives on.
pub fn replace_self(program: &Path, called: &str, arguments: &[OsString], kept: &[BorrowedFd<'_>]) -> io::Error {
    let prepared = || {
        let program = CString::new(program.as_os_str().as_bytes())?;
        let mut all = vec![CString::new(called)?];
        for argument in arguments {
            all.push(CString::new(argument.as_bytes())?);
        }
        Ok::<_, io::Error>((program, all))
    };
    let (program, arguments) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    // Until the new program has its handlers, none of these may end it; what comes meanwhile waits.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held_back()), None);
    for descriptor in kept {
        if let Err(error) = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())) {
            close_at_exec(kept);
            let_signals_through();
            return error.into();
        }
    }
    let Err(error) = nix::unistd::execv(&program, &arguments);
    close_at_exec(kept);
    let_signals_through();
    error.into()
}

fn held_back() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect()
}

/// For the new program, once it handles them.
pub fn let_signals_through() {
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&held_back()), None);
}

/// The same with nothing left open but standard input, output and error.
pub fn replace_self_bare(program: &Path, called: &str, arguments: &[OsString]) -> io::Error {
    super::spawn::close_at_exec_from(super::spawn::FIRST_PASSED);
    replace_self(program, called, arguments, &[])
}

fn close_at_exec(descriptors: &[BorrowedFd<'_>]) {
    for descriptor in descriptors {
        // They are open: they are borrowed.
        let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}

/// A descriptor that the program before us left open at `number`; an error when nothing is there. It is
/// closed at the next exec. Each number may be taken once.
pub fn take_kept(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a number; one that is not open is an error here and goes no further.
    let open = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(open.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and the program before us says that it is ours; nothing else in this
    // process knows the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
