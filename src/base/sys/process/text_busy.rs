//! Starts programs whose file was written a moment ago.
//!
//! The kernel refuses to run a file that any process has open for writing (ETXTBSY). A file that this process has
//! closed may still be open in a child that another thread has forked and that has not reached its exec yet, for some
//! milliseconds. <https://github.com/golang/go/issues/22315> describes the race; every program with threads has it.

use crate::sys::blocking;
use nix::errno::Errno;
use std::io;
use std::time::Duration;

/// How long a start is repeated. A file that stays busy longer is really being written.
const LIMIT: Duration = Duration::from_secs(2);

/// Calls `start` until its error is not ETXTBSY, for at most two seconds.
pub(super) fn retry<T, E>(mut start: impl FnMut() -> Result<T, E>, is_busy: impl Fn(&E) -> bool) -> Result<T, E> {
    let started = blocking::poll(LIMIT, Duration::from_millis(50), || match start() {
        Err(error) if is_busy(&error) => None,
        result => Some(result),
    });
    started.unwrap_or_else(start)
}

/// True for ETXTBSY.
pub(super) fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ETXTBSY as i32)
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::super::spawn::Spawn;
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::process::Command;

    /// Writes a program and keeps its file open for writing for 100 ms, as a child between fork and exec does.
    fn busy_program(path: &Path) -> std::thread::JoinHandle<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path).unwrap();
        io::Write::write_all(&mut file, b"#!/bin/sh\necho started\n").unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(file);
        })
    }

    #[test]
    fn a_program_written_a_moment_ago_starts() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let writer = busy_program(&program);
        let output = command::output_within(&mut Command::new(&program), Duration::from_secs(60)).unwrap();
        assert_eq!(output.stdout, b"started\n");
        writer.join().unwrap();

        let program = folder.path().join("other");
        let writer = busy_program(&program);
        let null = File::options().write(true).open("/dev/null").unwrap();
        let pid = Spawn::new(&program).start(null.as_fd()).unwrap();
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
        writer.join().unwrap();
    }

    #[test]
    fn other_errors_are_not_retried() {
        let mut starts = 0;
        let result = retry(
            || {
                starts += 1;
                Err::<(), _>(io::Error::from_raw_os_error(Errno::ENOENT as i32))
            },
            is_busy,
        );
        assert_eq!((result.unwrap_err().kind(), starts), (io::ErrorKind::NotFound, 1));
    }
}
