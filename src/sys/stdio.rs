//! Standard output and error of a process that goes into the background.

use std::fs::OpenOptions;

/// Points stdout at nothing, so that whoever reads the other end sees that it is closed.
pub fn detach() {
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        // Without it the terminal would wait longer; nothing else depends on it.
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
