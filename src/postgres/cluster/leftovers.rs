//! PostgreSQL processes left by a killed supervisor: a postmaster, or backends without one. A busy backend keeps the
//! shared memory and so blocks the next start. Their working directory, our data directory, identifies them.

use crate::{Endpoint, SOCKET_PORT};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::{self, ProcessId, Signal};
use std::io;
use std::time::{Duration, Instant};

/// Limit of search rounds. One suffices unless a server was just starting.
const ROUNDS: u32 = 5;

/// Finds the processes of a server on the home's data directory.
pub fn find(home: &Home) -> Vec<ProcessId> {
    process::working_in(&home.postgres_data())
        .into_iter()
        .filter(|process| {
            let program = process::program_of(process.pid);
            program.is_some_and(|program| {
                program.file_name().is_some_and(|name| {
                    // "postgres (deleted)" after an installation was replaced while it ran.
                    name.to_string_lossy().starts_with("postgres")
                })
            })
        })
        .collect()
}

/// Asks the processes for a fast shutdown, without waiting for it.
pub fn interrupt(home: &Home) {
    find(home).iter().for_each(|process| process.signal(Signal::Interrupt));
}

/// Terminates the processes, with a clean shutdown first, and removes lock files that would block the next start if
/// their pid was reused or their content damaged. Returns the number of processes. The caller holds the home's lock, so
/// no server in use is affected.
pub fn end(home: &Home) -> io::Result<usize> {
    let mut count = 0;
    // A live server may start processes between the search and the signals.
    for _ in 0..ROUNDS {
        let mut remaining = find(home);
        if remaining.is_empty() {
            remove_lock_files(home)?;
            return Ok(count);
        }
        count += remaining.len();
        // Only a postmaster does a fast shutdown; backends without one can only be terminated.
        // Signals: PostgreSQL manual, "Shutting Down the Server".
        if has_postmaster(home, &remaining) {
            signal_and_wait(&mut remaining, Signal::Interrupt, Duration::from_secs(5));
        }
        signal_and_wait(&mut remaining, Signal::Quit, Duration::from_millis(500));
        signal_and_wait(&mut remaining, Signal::Kill, Duration::from_secs(2));
    }
    let pids: Vec<String> = find(home).iter().map(|process| process.pid.to_string()).collect();
    Err(io::Error::other(format!("processes of the last server do not exit: {}", pids.join(", "))))
}

/// Removes the lock files of the last server: their pid may belong to a zombie or an unrelated process, which
/// PostgreSQL would mistake for a server. The caller has verified that no server runs.
fn remove_lock_files(home: &Home) -> io::Result<()> {
    if home.postgres_data().is_dir() {
        files::remove_any(&home.postgres_data().join("postmaster.pid"))?;
    }
    let socket = Endpoint::for_home(home).socket_folder.join(format!(".s.PGSQL.{SOCKET_PORT}"));
    files::remove_any(&socket)?;
    files::remove_any(&socket.with_added_extension("lock"))
}

fn has_postmaster(home: &Home, processes: &[ProcessId]) -> bool {
    let text = files::read_text(&home.postgres_data().join("postmaster.pid"), 64 * 1024).ok().flatten();
    let pid = text.as_ref().and_then(|text| text.lines().next()).and_then(|line| line.trim().parse().ok());
    processes.iter().any(|process| Some(process.pid) == pid)
}

/// Keeps in `processes` those that are still running afterwards.
pub(super) fn signal_and_wait(processes: &mut Vec<ProcessId>, signal: Signal, timeout: Duration) {
    for process in processes.iter() {
        process.signal(signal);
        // A process stopped by SIGSTOP handles only SIGKILL until it continues.
        process.signal(Signal::Continue);
    }
    let deadline = Instant::now() + timeout;
    processes.retain(|process| !process.wait_gone(deadline.saturating_duration_since(Instant::now())));
}
