//! What `std::process::Command` lacks: a time limit, an end with its starter, a session of its own.

use super::process::{Signal, signal_group};
use super::spawn::{FIRST_PASSED, close_at_exec_from};
use std::io::{self, BufRead, Read};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Runs `command` to its end and returns what it printed; ends it, with an error of kind `TimedOut`,
/// when it takes longer than `limit`.
pub fn output_within(command: &mut std::process::Command, limit: Duration) -> io::Result<std::process::Output> {
    output_limited(command, limit, u64::MAX)
}

/// The same, and no more than `bytes` of each output are read: a program that goes on finds its pipe
/// closed.
pub fn output_limited(
    command: &mut std::process::Command,
    limit: Duration,
    bytes: u64,
) -> io::Result<std::process::Output> {
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (read_aside(child.stdout.take(), bytes), read_aside(child.stderr.take(), bytes));
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not finish within {} s", limit.as_secs()),
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(std::process::Output { status, stdout: text(stdout), stderr: text(stderr) })
}

/// Runs `command` to its end and gives each line that it writes to its standard error to `take`, as it comes; the rest is
/// thrown away. Ends it, with an error of kind `TimedOut`, when it takes longer than `limit`.
pub fn errors_line_by_line(
    command: &mut std::process::Command,
    limit: Duration,
    take: &mut dyn FnMut(&str),
) -> io::Result<std::process::ExitStatus> {
    output_and_errors_line_by_line(command, limit, 0, &mut |_| {}, take).map(|(status, _)| status)
}

/// The same with what it writes to its standard output, of which no more than `bytes` are kept. `begun` is told its pid.
pub fn output_and_errors_line_by_line(
    command: &mut std::process::Command,
    limit: Duration,
    bytes: u64,
    begun: &mut dyn FnMut(i32),
    take: &mut dyn FnMut(&str),
) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;
    let stdout = if bytes == 0 { Stdio::null() } else { Stdio::piped() };
    // What it starts ends with it.
    command.process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn()?;
    begun(i32::try_from(child.id()).unwrap_or_default());
    let output = read_aside(child.stdout.take(), bytes);
    let (sender, lines) = std::sync::mpsc::channel();
    let errors = child.stderr.take();
    std::thread::spawn(move || {
        for line in errors.into_iter().flat_map(|errors| io::BufReader::new(errors).split(b'\n')) {
            // Nobody listens any more when it has ended or took too long.
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now().checked_add(limit);
    let status = loop {
        match lines.recv_timeout(ROUND) {
            Ok(line) => take(&line),
            Err(RecvTimeoutError::Disconnected) => break child.wait()?,
            // What it has left running may keep the pipe open.
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            if let Ok(leader) = i32::try_from(child.id()) {
                signal_group(leader, Signal::Kill);
            }
            child.kill()?;
            child.wait()?;
            let message = format!("it did not finish within {} s", limit.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
    };
    Ok((status, output.join().unwrap_or_default()))
}

/// How often it is looked whether a program that says nothing has ended.
const ROUND: Duration = Duration::from_millis(200);

/// Reads in a thread of its own, so that neither pipe fills up while the other is read.
fn read_aside(pipe: Option<impl Read + Send + 'static>, limit: u64) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What could be read is what can be shown.
            let _ = pipe.take(limit).read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Makes the kernel end `command` when the thread that starts it ends. Last among what is done
/// between fork and exec: a change of credentials would undo it.
pub fn dies_with_this_thread(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Some(Signal::Kill.to_nix())).map_err(io::Error::from));
    }
}

/// Makes `command` start in a session of its own, away from this terminal, its signals and whatever
/// else it has open.
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
