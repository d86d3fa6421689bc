//! A signal from the kernel at the death of the parent.

use super::Signal;
use nix::errno::Errno;

/// Requests that the kernel sends `signal` to this process when the thread that has started it exits, prctl(2). Async-signal
/// safe. The portable half has no such call: there the next start of the parent's program ends what is left.
pub(super) fn request(signal: Signal) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    if !crate::sys::is_portable() {
        return nix::sys::prctl::set_pdeathsig(Some(signal.to_nix()));
    }
    let _ = signal;
    Ok(())
}
