//! Waits for descriptors without a runtime, poll(2).

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Waits until a descriptor is readable or at its end, or until the time limit. Returns which of them are.
pub(crate) fn wait_readable<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut waiting: Vec<PollFd<'_>> =
        descriptors.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // The limit is rounded up, because waking early would make the caller spin.
    let timeout = match limit {
        None => PollTimeout::NONE,
        Some(limit) => PollTimeout::try_from(limit.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX),
    };
    match poll(&mut waiting, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut readable = waiting.iter().map(|fd| fd.any().unwrap_or(false));
    Ok(descriptors.map(|descriptor| descriptor.is_some() && readable.next().unwrap_or(false)))
}
