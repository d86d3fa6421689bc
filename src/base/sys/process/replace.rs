//! Execs another program in this process, with some descriptors left open for it.

use super::descriptors::{FIRST_PASSED, close_at_exec_from};
use super::text_busy;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// Execs `program` with `argv[0]` = `argv0`; returns only on failure, with nothing changed. Descriptors in `kept` keep
/// their numbers; all others marked close-on-exec are closed. Must be called from the main thread: the kernel sends
/// children their parent's death signal when the thread that started them exits, and only the exec'ing thread survives.
pub fn replace_self(program: &Path, argv0: &str, arguments: &[OsString], kept: &[BorrowedFd<'_>]) -> io::Error {
    let prepared = || {
        let program = CString::new(program.as_os_str().as_bytes())?;
        let mut argv = vec![CString::new(argv0)?];
        for argument in arguments {
            argv.push(CString::new(argument.as_bytes())?);
        }
        Ok::<_, io::Error>((program, argv))
    };
    let (program, arguments) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    // The signals stay blocked until the new program has installed its handlers; pending ones are delivered then.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked_signals()), None);
    for descriptor in kept {
        if let Err(error) = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())) {
            close_at_exec(kept);
            unblock_signals();
            return error.into();
        }
    }
    let exec = || -> io::Result<Infallible> { Ok(nix::unistd::execv(&program, &arguments)?) };
    let Err(error) = text_busy::retry(exec, text_busy::is_busy);
    close_at_exec(kept);
    unblock_signals();
    error
}

/// The signals that are blocked during the exec.
fn blocked_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect()
}

/// Unblocks the signals, for the new program once its handlers are installed.
pub fn unblock_signals() {
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked_signals()), None);
}

/// Like [`replace_self`], with only standard input, output and error left open.
pub fn replace_self_bare(program: &Path, argv0: &str, arguments: &[OsString]) -> io::Error {
    close_at_exec_from(FIRST_PASSED);
    replace_self(program, argv0, arguments, &[])
}

/// Execs a command with its arguments and variables; returns only on failure.
pub fn replace_self_by(mut command: Command) -> io::Error {
    use std::os::unix::process::CommandExt;
    command.exec()
}

/// Marks descriptors close-on-exec.
fn close_at_exec(descriptors: &[BorrowedFd<'_>]) {
    for descriptor in descriptors {
        // This cannot fail, because borrowed descriptors are open.
        let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}
