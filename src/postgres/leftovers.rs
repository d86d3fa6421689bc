//! What a supervisor that was killed may have left of its Postgres: a postmaster, or backends
//! whose postmaster is gone. A busy backend keeps the shared memory, and with it the next start,
//! until it is ended. They are ours, provably: they work in our data directory.

use super::{Endpoint, SOCKET_PORT};
use crate::home::Home;
use crate::sys::files;
use crate::sys::process::{self, ProcessId, Signal};
use std::io;
use std::time::{Duration, Instant};

/// How often it is looked for what is left. One is enough but for a server that was just starting.
const ROUNDS: u32 = 5;

/// Processes of a server on the home's data directory.
pub fn find(home: &Home) -> Vec<ProcessId> {
    process::working_in(&home.postgres_data())
        .into_iter()
        .filter(|found| {
            let program = process::program_of(found.pid);
            program.is_some_and(|program| {
                program.file_name().is_some_and(|name| {
                    // "postgres (deleted)" after an installation was replaced under it.
                    name.to_string_lossy().starts_with("postgres")
                })
            })
        })
        .collect()
}

/// Ends them, politely first, and removes the lock files that would stop the next start where their
/// pid has been reused or their content damaged. Returns how many there were.
/// The caller holds the home's lock, so no live server can be meant.
pub fn end(home: &Home) -> io::Result<usize> {
    let mut count = 0;
    // A server that lives goes on starting processes while we look at those it had.
    for _ in 0..ROUNDS {
        let mut left = find(home);
        if left.is_empty() {
            remove_lock_files(home)?;
            return Ok(count);
        }
        count += left.len();
        // Fast shutdown is a postmaster's to give; backends without one can only be ended.
        // Signals: PostgreSQL manual, "Shutting Down the Server".
        if has_postmaster(home, &left) {
            signal_and_wait(&mut left, Signal::Interrupt, Duration::from_secs(5));
        }
        signal_and_wait(&mut left, Signal::Quit, Duration::from_millis(500));
        signal_and_wait(&mut left, Signal::Kill, Duration::from_secs(2));
    }
    let pids: Vec<String> = find(home).iter().map(|process| process.pid.to_string()).collect();
    Err(io::Error::other(format!("processes of the last server do not end: {}", pids.join(", "))))
}

/// The pids in them may be a zombie's or a stranger's by now, and Postgres would believe them.
/// That no server is there has just been proven by better means.
fn remove_lock_files(home: &Home) -> io::Result<()> {
    if home.postgres_data().is_dir() {
        files::remove_any(&home.postgres_data().join("postmaster.pid"))?;
    }
    let socket = Endpoint::for_home(home).socket_folder.join(format!(".s.PGSQL.{SOCKET_PORT}"));
    files::remove_any(&socket)?;
    files::remove_any(&socket.with_added_extension("lock"))
}

fn has_postmaster(home: &Home, left: &[ProcessId]) -> bool {
    let text = files::read_text(&home.postgres_data().join("postmaster.pid"), 64 * 1024).ok().flatten();
    let pid = text.as_ref().and_then(|text| text.lines().next()).and_then(|line| line.trim().parse().ok());
    left.iter().any(|process| Some(process.pid) == pid)
}

/// Keeps in `left` what is still there afterwards.
fn signal_and_wait(left: &mut Vec<ProcessId>, signal: Signal, patience: Duration) {
    for process in left.iter() {
        process.signal(signal);
        // One that was stopped by SIGSTOP acts on nothing but SIGKILL until it continues.
        process.signal(Signal::Continue);
    }
    let deadline = Instant::now() + patience;
    left.retain(|process| !process.wait_gone(deadline.saturating_duration_since(Instant::now())));
}
