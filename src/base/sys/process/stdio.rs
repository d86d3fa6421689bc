//! Standard output of a process that moves to the background.

use std::fs::OpenOptions;

/// What a write to a full pipe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    Block,
    /// Fails instead of waiting for the reader.
    Fail,
}

/// Sets what writes to stdout do when its pipe is full. Applies to all processes that share this open file.
pub fn set_stdout_writes(writes: Writes) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let stdout = std::io::stdout();
    let flags = match writes {
        Writes::Block => OFlag::empty(),
        Writes::Fail => OFlag::O_NONBLOCK,
    };
    // If this fails, writes keep their behaviour: at worst they wait for a reader that is stopped.
    let _ = fcntl(&stdout, FcntlArg::F_SETFL(flags));
}

/// Redirects stdout to /dev/null, so that the reader of its pipe sees the end of the output.
pub fn detach() {
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        // If this fails, the reader only waits longer, until this process exits.
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
