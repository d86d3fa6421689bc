//! What `std::process::Command` lacks: a time limit, an end with its starter, a session of its own.

use super::process::{Signal, signal_group};
use super::reaper::Exit;
use super::spawn::{FIRST_PASSED, close_at_exec_from};
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why a program failed: its own words, and how it ended where a signal did that or it said nothing.
pub fn failure(said: &str, status: std::process::ExitStatus) -> String {
    let (said, exit) = (said.trim(), Exit::from(status));
    match (said.is_empty(), exit) {
        (true, _) => format!("it ended with {exit}"),
        (false, Exit::Signal(_)) => format!("{said} (it ended with {exit})"),
        (false, Exit::Code(_)) => said.to_owned(),
    }
}

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
    Ok(std::process::Output { status, stdout: stdout.bytes(), stderr: stderr.bytes() })
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
    super::blocking::thread(move || {
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
            // It has closed its pipe, or what it has left running keeps the pipe open.
            Err(why) => {
                if let Some(status) = child.try_wait()? {
                    rest(&lines, take);
                    break status;
                }
                if why == RecvTimeoutError::Disconnected {
                    std::thread::sleep(Duration::from_millis(1));
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
    Ok((status, output.bytes()))
}

/// How often it is looked whether a program that says nothing has ended.
const ROUND: Duration = Duration::from_millis(200);

/// For what a program that has ended wrote last and is not read yet. Whatever it has left running may keep
/// the pipe open, and write to it, for as long as it likes.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Gives `take` what was written between the last look at the lines and the end.
fn rest(lines: &Receiver<String>, take: &mut dyn FnMut(&str)) {
    let deadline = Instant::now() + LAST_WORDS;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        take(&line);
        if Instant::now() >= deadline {
            return;
        }
    }
}

/// What is read in a thread of its own, so that neither pipe fills up while the other is read.
struct Aside {
    thread: std::thread::JoinHandle<()>,
    read: Arc<Mutex<Vec<u8>>>,
}

fn read_aside(pipe: Option<impl Read + Send + 'static>, limit: u64) -> Aside {
    let read = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&read);
    let thread = super::blocking::thread(move || {
        let Some(mut pipe) = pipe.map(|pipe| pipe.take(limit)) else { return };
        let mut part = [0; 8 * 1024];
        loop {
            match pipe.read(&mut part) {
                Ok(count @ 1..) => shared.lock().unwrap_or_else(PoisonError::into_inner).extend(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What could be read is what can be shown.
                Ok(0) | Err(_) => return,
            }
        }
    });
    Aside { thread, read }
}

impl Aside {
    /// What a program that has ended wrote.
    fn bytes(self) -> Vec<u8> {
        let deadline = Instant::now() + LAST_WORDS;
        let mut pause = Duration::from_micros(50);
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
    fn a_failure_without_words_says_how_the_program_ended() {
        let status = |script| shell(script).status().unwrap();
        assert_eq!(failure("", status("kill -XFSZ $$")), "it ended with SIGXFSZ (the limit on file sizes, ulimit -f)");
        assert_eq!(failure(" no\n", status("exit 3")), "no");
        assert_eq!(failure("no", status("kill -9 $$")), "no (it ended with SIGKILL)");
    }

    #[test]
    fn what_comes_after_the_last_look_is_heard() {
        let (sender, lines) = std::sync::mpsc::channel();
        let left_running = sender.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            sender.send("error: too late".to_owned()).unwrap();
        });
        let mut heard = Vec::new();
        rest(&lines, &mut |line| heard.push(line.to_owned()));
        assert_eq!(heard, ["error: too late"]);
        drop(left_running);
    }

    #[test]
    fn what_a_program_leaves_running_holds_up_nobody() {
        let mut started = Vec::new();
        let script = "sleep 30 & echo $! >&2; echo done";
        let (status, said) = output_and_errors_line_by_line(&mut shell(script), LIMIT, 100, &mut |_| {}, &mut |line| {
            started.push(line.to_owned());
        })
        .unwrap();
        assert!(status.success());
        assert_eq!(said, b"done\n");
        let output = output_within(&mut shell("sleep 30 & echo $!"), LIMIT).unwrap();
        started.push(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        assert_eq!(started.len(), 2);
        for pid in started {
            assert!(Command::new("kill").arg(pid).status().unwrap().success());
        }
    }

    #[test]
    fn one_that_takes_too_long_is_ended() {
        let taken = output_within(&mut shell("sleep 300"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::TimedOut);
        let mut heard = Vec::new();
        let mut hear = |line: &str| heard.push(line.to_owned());
        let script = "echo begun >&2; sleep 300";
        let taken = errors_line_by_line(&mut shell(script), Duration::from_secs(1), &mut hear).unwrap_err();
        assert_eq!((taken.kind(), heard), (io::ErrorKind::TimedOut, vec!["begun".to_owned()]));
        let script = "exec 2>&-; sleep 30";
        let taken = errors_line_by_line(&mut shell(script), Duration::from_secs(1), &mut |_| {}).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn no_more_is_kept_than_is_asked_for() {
        let output = output_limited(&mut shell("yes 2>/dev/null"), LIMIT, 10).unwrap();
        assert_eq!(output.stdout, b"y\ny\ny\ny\ny\n");
    }
}
