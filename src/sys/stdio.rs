//! Standard output and error of a process that goes into the background.

use std::fs::OpenOptions;

/// Whether a write to stdout waits for a reader that does not read. Of the open file, shared by all that have it.
pub fn set_stdout_blocking(blocking: bool) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let stdout = std::io::stdout();
    let flags = if blocking { OFlag::empty() } else { OFlag::O_NONBLOCK };
    // Where it cannot be set, a reader that is stopped is waited for.
    let _ = fcntl(&stdout, FcntlArg::F_SETFL(flags));
}

/// Points stdout at nothing, so that whoever reads the other end sees that it is closed.
pub fn detach() {
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        // Without it the terminal would wait longer; nothing else depends on it.
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
