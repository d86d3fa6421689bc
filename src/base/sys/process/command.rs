//! Additions to `std::process::Command`: a time limit, death with the starting thread, a session of its own.

use super::descriptors::{FIRST_PASSED, close_at_exec_from};
use super::reaper::Exit;
use super::{ENDS_WITH, Signal, parent_death, signal_group, text_busy};
use crate::sys::{blocking, is_portable};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Describes a program's failure: its stderr, and its exit status if a signal killed it or stderr is empty.
pub fn failure(stderr: &str, status: std::process::ExitStatus) -> String {
    let (stderr, exit) = (stderr.trim(), Exit::from(status));
    match (stderr.is_empty(), exit) {
        (true, _) => format!("it exited with {exit}"),
        (false, Exit::Signal(_)) => format!("{stderr} (it exited with {exit})"),
        (false, Exit::Code(_)) => stderr.to_owned(),
    }
}

/// Starts `command`, also when its program was written a moment ago (see [`text_busy`]).
pub fn spawn(command: &mut std::process::Command) -> io::Result<Child> {
    text_busy::retry(|| command.spawn(), text_busy::is_busy)
}

/// Runs `command` to its end and returns its output; kills it, with an error of kind `TimedOut`, when it takes longer
/// than `limit`.
pub fn output_within(command: &mut std::process::Command, limit: Duration) -> io::Result<std::process::Output> {
    output_limited(command, limit, u64::MAX)
}

/// True for the `python3` of a Mac without the command line tools: it only opens a window that offers to install them.
pub fn is_apple_stub(program: &Path) -> bool {
    let select = program.with_file_name("xcode-select");
    let has_tools = |output: std::process::Output| output.status.success();
    let limit = Duration::from_secs(10);
    select.is_file() && !output_within(std::process::Command::new(select).arg("-p"), limit).is_ok_and(has_tools)
}

/// Like [`output_within`], but reads at most `bytes` of each output; a program that writes more finds its pipe closed.
pub fn output_limited(
    command: &mut std::process::Command,
    limit: Duration,
    bytes: u64,
) -> io::Result<std::process::Output> {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let (stdout, stderr) = (read_in_thread(child.stdout.take(), bytes), read_in_thread(child.stderr.take(), bytes));
    let Some(status) = blocking::poll(limit, LONGEST_PAUSE, || child.try_wait().transpose()) else {
        child.kill()?;
        child.wait()?;
        return Err(timed_out(limit));
    };
    let status = status?;
    Ok(std::process::Output { status, stdout: stdout.bytes(), stderr: stderr.bytes() })
}

/// Runs `command` to its end and passes each line of its stderr to `on_line` as it comes; stdout is discarded. Kills
/// it, with an error of kind `TimedOut`, when it takes longer than `limit`.
pub fn errors_line_by_line(
    command: &mut std::process::Command,
    limit: Duration,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<std::process::ExitStatus> {
    output_and_errors_line_by_line(command, limit, 0, &mut |_| {}, on_line).map(|(status, _)| status)
}

/// Like [`errors_line_by_line`], and also returns at most `bytes` of its stdout. `on_start` receives its pid.
pub(crate) fn output_and_errors_line_by_line(
    command: &mut std::process::Command,
    limit: Duration,
    bytes: u64,
    on_start: &mut dyn FnMut(i32),
    on_line: &mut dyn FnMut(&str),
) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;
    let stdout = if bytes == 0 { Stdio::null() } else { Stdio::piped() };
    // The program gets a process group of its own, so that its descendants can be killed with it.
    command.process_group(0);
    let mut child = spawn(command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()))?;
    on_start(i32::try_from(child.id()).unwrap_or_default());
    let output = read_in_thread(child.stdout.take(), bytes);
    let lines = lines_in_thread(child.stderr.take());
    let status = wait_line_by_line(&mut child, &lines, limit, on_line)?;
    Ok((status, output.bytes()))
}

/// Reads lines in a thread until the pipe ends or the receiver is dropped, after the program has exited or timed out.
fn lines_in_thread(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, lines) = std::sync::mpsc::channel();
    blocking::thread(move || {
        for line in pipe.into_iter().flat_map(|pipe| io::BufReader::new(pipe).split(b'\n')) {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Passes lines to `on_line` until `child` exits, and kills it after `limit`.
fn wait_line_by_line(
    child: &mut Child,
    lines: &Receiver<String>,
    limit: Duration,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<std::process::ExitStatus> {
    let deadline = Instant::now().checked_add(limit);
    loop {
        match lines.recv_timeout(POLL_INTERVAL) {
            Ok(line) => on_line(&line),
            // No line came: the program is silent, has closed its pipe or has exited, or a process that it left running
            // keeps the pipe open.
            Err(reason) => {
                if let Some(status) = child.try_wait()? {
                    read_remaining(lines, on_line);
                    return Ok(status);
                }
                if reason == RecvTimeoutError::Disconnected {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            kill_group(child)?;
            return Err(timed_out(limit));
        }
    }
}

/// Kills the program, which leads a process group, with its descendants.
fn kill_group(child: &mut Child) -> io::Result<()> {
    if let Ok(leader) = i32::try_from(child.id()) {
        signal_group(leader, Signal::Kill);
    }
    child.kill()?;
    child.wait().map(drop)
}

fn timed_out(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it did not finish within {} s", limit.as_secs()))
}

/// Longest pause between checks whether a program has exited, or its output was read.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Interval for checking whether a silent program has exited.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time limit for reading the remaining output of an exited program. A process that it left running may keep the pipe
/// open and write to it indefinitely.
const REMAINING_OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Passes the lines that were written before the exit but not read yet to `on_line`.
fn read_remaining(lines: &Receiver<String>, on_line: &mut dyn FnMut(&str)) {
    let deadline = Instant::now() + REMAINING_OUTPUT_TIMEOUT;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        on_line(&line);
        if Instant::now() >= deadline {
            return;
        }
    }
}

/// Output that is read in a separate thread, so that neither pipe fills up while the other is read.
struct ThreadedReader {
    thread: std::thread::JoinHandle<()>,
    read: Arc<Mutex<Vec<u8>>>,
}

/// Reads at most `limit` bytes in a thread.
fn read_in_thread(pipe: Option<impl Read + Send + 'static>, limit: u64) -> ThreadedReader {
    let read = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&read);
    let thread = blocking::thread(move || {
        let Some(mut pipe) = pipe.map(|pipe| pipe.take(limit)) else { return };
        let mut chunk = [0; 8 * 1024];
        loop {
            match pipe.read(&mut chunk) {
                Ok(count @ 1..) => shared.lock().unwrap_or_else(PoisonError::into_inner).extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // On an error, the output read so far is used.
                Ok(0) | Err(_) => return,
            }
        }
    });
    ThreadedReader { thread, read }
}

impl ThreadedReader {
    /// The output of an exited program.
    fn bytes(self) -> Vec<u8> {
        let is_read = || self.thread.is_finished().then_some(());
        let _ = blocking::poll(REMAINING_OUTPUT_TIMEOUT, LONGEST_PAUSE, is_read);
        std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes the kernel kill `command` when the thread that starts it exits. Call it after all that adds steps between fork
/// and exec, because a change of credentials clears the request, prctl(2). In the portable half, a server that stops kills
/// it.
pub fn dies_with_this_thread(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    if is_portable() {
        command.env(ENDS_WITH, std::process::id().to_string());
    }
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(parent_death::request(Signal::Kill)?));
    }
}

/// Makes `command` start in a session of its own, without this terminal and its signals, and without descriptors other
/// than stdin, stdout and stderr.
pub fn in_own_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: two system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            close_at_exec_from(FIRST_PASSED);
            nix::unistd::setsid().map(drop).map_err(io::Error::from)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const LIMIT: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_without_stderr_reports_the_exit_status() {
        let status = |script| shell(script).status().unwrap();
        assert_eq!(failure("", status("kill -XFSZ $$")), "it exited with SIGXFSZ (the limit on file sizes, ulimit -f)");
        assert_eq!(failure(" no\n", status("exit 3")), "no");
        assert_eq!(failure("no", status("kill -9 $$")), "no (it exited with SIGKILL)");
    }

    #[test]
    fn remaining_lines_are_read_after_the_exit() {
        let (sender, lines) = std::sync::mpsc::channel();
        let left_running = sender.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            sender.send("error: too late".to_owned()).unwrap();
        });
        let mut received = Vec::new();
        read_remaining(&lines, &mut |line| received.push(line.to_owned()));
        assert_eq!(received, ["error: too late"]);
        drop(left_running);
    }

    #[test]
    fn a_process_left_running_does_not_block_reading() {
        let mut started = Vec::new();
        let script = "sleep 30 & echo $! >&2; echo done";
        let (status, stdout) =
            output_and_errors_line_by_line(&mut shell(script), LIMIT, 100, &mut |_| {}, &mut |line| {
                started.push(line.to_owned());
            })
            .unwrap();
        assert!(status.success());
        assert_eq!(stdout, b"done\n");
        let output = output_within(&mut shell("sleep 30 & echo $!"), LIMIT).unwrap();
        started.push(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        assert_eq!(started.len(), 2);
        for pid in started {
            assert!(Command::new("kill").arg(pid).status().unwrap().success());
        }
    }

    #[test]
    fn a_program_over_its_time_limit_is_killed() {
        let error = output_within(&mut shell("sleep 300"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut received = Vec::new();
        let mut on_line = |line: &str| received.push(line.to_owned());
        let script = "echo begun >&2; sleep 300";
        let error = errors_line_by_line(&mut shell(script), Duration::from_secs(1), &mut on_line).unwrap_err();
        assert_eq!((error.kind(), received), (io::ErrorKind::TimedOut, vec!["begun".to_owned()]));
        let script = "exec 2>&-; sleep 30";
        let error = errors_line_by_line(&mut shell(script), Duration::from_secs(1), &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn output_is_limited_to_the_requested_bytes() {
        let output = output_limited(&mut shell("yes 2>/dev/null"), LIMIT, 10).unwrap();
        assert_eq!(output.stdout, b"y\ny\ny\ny\ny\n");
    }
}
