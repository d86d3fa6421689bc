//! Ends processes of DAG files that a server left.

use leoflow_base::sys::is_portable;
use leoflow_base::sys::process::{self, Signal, reaper};
use leoflow_python::{TASK_MARK, is_parse_mark, is_parse_mark_of};
use std::time::{Duration, Instant};

/// How long processes are killed that start new ones.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two rounds; shorter than the life of a process in a chain of them.
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// Kills the processes of DAG files that the server with this pid has left, where the kernel does not end them with it.
pub(crate) fn end_of(server: i32) {
    if is_portable() {
        process::kill_marked(TASK_MARK, |mark| is_parse_mark_of(mark, server.unsigned_abs()), KILL_LIMIT);
    }
}

/// Kills what DAG files left running at their import when the server ended before it could: such processes are adopted
/// by this one. Tasks, which outlive the supervisor, have other marks.
pub(crate) fn end_all() {
    let deadline = Instant::now() + KILL_LIMIT;
    while Instant::now() < deadline {
        let is_of_dag_file = |pid: i32| process::variable_of(pid, TASK_MARK).is_some_and(|mark| is_parse_mark(&mark));
        let mut is_settled = true;
        for pid in process::children_and_zombies() {
            let is_remaining = is_of_dag_file(pid);
            if is_remaining {
                process::signal_process(pid, Signal::Kill);
            }
            // A child that exits may have started another process, which the list does not have yet. Its own mark can no
            // longer be read, so another round is needed.
            is_settled &= !is_remaining && !process::has_begun_to_exit(pid);
        }
        if is_settled {
            return;
        }
        std::thread::sleep(KILL_PAUSE);
        reaper::ended_children();
    }
}
