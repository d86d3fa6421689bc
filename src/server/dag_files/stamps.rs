//! Stamps of files at paths that may be on a hanging mount.

use leoflow_base::sys::blocking;
use leoflow_python::Stamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Stamps by path; `None` for a missing file.
pub type Stamps = HashMap<PathBuf, Option<Stamp>>;

/// Time limit for reading stamps; `stamps` leaves out the files that take longer.
const STAMPS_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the stamps in a thread that is abandoned when it does not answer: a path may be on a hanging mount.
pub fn stamps(paths: Vec<PathBuf>) -> Stamps {
    if paths.is_empty() {
        return Stamps::new();
    }
    let (sender, receiver) = mpsc::channel();
    blocking::thread(move || {
        for path in paths {
            let stamp = Stamp::of_path(&path);
            if sender.send((path, stamp)).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + STAMPS_TIMEOUT;
    let mut stamps = Stamps::new();
    while let Ok((path, stamp)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        stamps.insert(path, stamp);
    }
    stamps
}
