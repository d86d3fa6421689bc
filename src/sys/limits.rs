//! Signals of resource limits as errors. By default a file that grows past `ulimit -f`, or a process that has used up `ulimit -t`,
//! ends the process without a message. Handlers, unlike SIG_IGN, are not inherited by programs that are executed.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::OnceLock;

/// Prepared: a signal handler may not allocate.
static TIME_IS_UP: OnceLock<Vec<u8>> = OnceLock::new();

/// From now on a write past RLIMIT_FSIZE fails with EFBIG, and a process that has used up RLIMIT_CPU writes `message` to its stderr and
/// ends with exit code 1. Called once, before there are threads.
pub fn report(message: String) {
    leave_time_for_a_message();
    let _ = TIME_IS_UP.set(message.into_bytes());
    handle(Signal::SIGXFSZ, go_on);
    handle(Signal::SIGXCPU, end);
}

/// `ulimit -t` sets both limits, and at the hard one the kernel sends SIGKILL alone, setrlimit(2): the soft one is put a second
/// before it, here and for every program that is started from here.
fn leave_time_for_a_message() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_CPU) else { return };
    if soft == hard && hard != RLIM_INFINITY && hard > 1 {
        // Where it cannot be lowered the end has no message.
        let _ = setrlimit(Resource::RLIMIT_CPU, hard - 1, hard);
    }
}

/// Bytes that a file may have by `ulimit -f`; `None` where there is no limit.
pub fn file_size() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_FSIZE).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: both handlers make only async-signal-safe calls, signal-safety(7).
    let _ = unsafe { sigaction(signal, &action) };
}

/// The write that sent the signal fails with EFBIG, setrlimit(2).
extern "C" fn go_on(_: libc::c_int) {}

extern "C" fn end(_: libc::c_int) {
    let message = TIME_IS_UP.get().map(Vec::as_slice).unwrap_or_default();
    // SAFETY: write(2) and _exit(2), on memory that lives as long as the process.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::_exit(1)
    }
}
