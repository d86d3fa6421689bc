//! Turns signals of resource limits into errors. By default, exceeding `ulimit -f` or `ulimit -t` kills the process
//! without a message. Handlers, unlike SIG_IGN, are not inherited across exec.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::OnceLock;

/// The message of a process that exceeds its CPU limit; prepared in advance, because a signal handler may not allocate.
static TIME_IS_UP: OnceLock<Vec<u8>> = OnceLock::new();

/// Makes writes past RLIMIT_FSIZE fail with EFBIG, and makes a process that exceeds RLIMIT_CPU write `message` to
/// stderr and exit with code 1. Called once, before other threads start.
pub fn report(message: String) {
    leave_time_for_a_message();
    let _ = TIME_IS_UP.set(message.into_bytes());
    install_handler(Signal::SIGXFSZ, ignore);
    install_handler(Signal::SIGXCPU, exit_with_message);
}

/// Lowers the soft CPU limit to one second below the hard one, also for child processes: `ulimit -t` sets both, and at
/// the hard limit the kernel only sends SIGKILL, setrlimit(2).
fn leave_time_for_a_message() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_CPU) else { return };
    if soft == hard && hard != RLIM_INFINITY && hard > 1 {
        // If this fails, the process dies without a message.
        let _ = setrlimit(Resource::RLIMIT_CPU, hard - 1, hard);
    }
}

/// The maximum file size by `ulimit -f` in bytes; `None` without a limit.
pub fn file_size() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_FSIZE).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

fn install_handler(signal: Signal, handler: extern "C" fn(libc::c_int)) {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: both handlers make only async-signal-safe calls, signal-safety(7).
    let _ = unsafe { sigaction(signal, &action) };
}

/// Does nothing: the write that caused the signal then fails with EFBIG, setrlimit(2).
extern "C" fn ignore(_: libc::c_int) {}

extern "C" fn exit_with_message(_: libc::c_int) {
    let message = TIME_IS_UP.get().map(Vec::as_slice).unwrap_or_default();
    // SAFETY: write(2) and _exit(2), on memory that lives as long as the process.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::_exit(1)
    }
}
