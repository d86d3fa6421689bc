//! What a supervisor that was killed may have left of its Postgres: a postmaster, or backends
//! whose postmaster is gone. A busy backend keeps the shared memory, and with it the next start,
//! until it is ended. They are ours, provably: they work in our data directory.

use crate::home::Home;
use crate::sys::files;
use crate::sys::process::{self, ProcessId, Signal};
use std::io;
use std::time::Duration;

/// Processes of a server on the home's data directory.
pub fn find(home: &Home) -> Vec<ProcessId> {
    process::working_in(&home.postgres_data())
        .into_iter()
        .filter(|found| {
            let program = process::program_of(found.pid);
            program.is_some_and(|program| program.file_name().is_some_and(|name| {
                // "postgres (deleted)" after an installation was replaced under it.
                name.to_string_lossy().starts_with("postgres")
            }))
        })
        .collect()
}

/// Ends them, politely first, and removes the pid file that would stop the next start where its
/// pid has been reused or its content damaged. Returns how many there were.
/// The caller holds the home's lock, so no live server can be meant.
pub fn end(home: &Home) -> io::Result<usize> {
    let mut left = find(home);
    let count = left.len();
    // Fast shutdown, immediate shutdown, and the end: PostgreSQL manual, "Shutting Down the Server".
    for (signal, patience) in [(Signal::Interrupt, 3000), (Signal::Quit, 1000), (Signal::Kill, 2000)] {
        if left.is_empty() {
            break;
        }
        for process in &left {
            process.signal(signal);
            // One that was stopped by SIGSTOP acts on nothing but SIGKILL until it continues.
            process.signal(Signal::Continue);
        }
        let patience = Duration::from_millis(patience);
        let deadline = std::time::Instant::now() + patience;
        left.retain(|process| !process.wait_gone(deadline.saturating_duration_since(std::time::Instant::now())));
    }
    if let Some(process) = left.first() {
        return Err(io::Error::other(format!("process {} of the last server does not end", process.pid)));
    }
    if home.postgres_data().is_dir() {
        files::remove_any(&home.postgres_data().join("postmaster.pid"))?;
    }
    Ok(count)
}
