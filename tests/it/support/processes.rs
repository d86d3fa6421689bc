//! Finds and ends the processes of a test by the test's folder in their command line or working directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Returns the pids of processes, without zombies, whose command line or working directory contains the folder's name.
pub fn mentioning(folder: &Path) -> Vec<i32> {
    // Matches only the name, because the test's folder in memory has another path but the same name.
    let needle = folder.file_name().and_then(|name| name.to_str()).unwrap();
    let own = std::process::id() as i32;
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && belongs(*pid, needle))
        .collect()
}

fn belongs(pid: i32, needle: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    !zombie && (String::from_utf8_lossy(&command).contains(needle) || folder.to_string_lossy().contains(needle))
}

/// Returns the pids of the folder's processes that have this argument.
pub fn with_argument(folder: &Path, word: &str) -> Vec<i32> {
    mentioning(folder).into_iter().filter(|pid| has_argument(*pid, word)).collect()
}

/// True for a warm Python itself, not for its forks: they have the same arguments, but an id as their mark.
pub fn is_warm_python(pid: i32) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    has_argument(pid, "zygote")
        && environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(b"LEOFLOW_TASK=________"))
}

fn has_argument(pid: i32, word: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
}

/// Sends SIGKILL to all processes of the folder until none is left, for at most ten seconds. Then removes the POSIX
/// shared memory of the killed PostgreSQL servers.
pub fn kill_all(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut shared = Vec::new();
    loop {
        let pids = mentioning(folder);
        if pids.is_empty() || Instant::now() > deadline {
            break;
        }
        shared.extend(pids.iter().flat_map(|pid| shared_memory_of(*pid)));
        for pid in pids {
            signal(pid, "KILL");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for path in shared {
        let _ = fs::remove_file(path);
    }
}

/// Lists the POSIX shared memory that a PostgreSQL process has mapped.
pub fn shared_memory_of(pid: i32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.find("/dev/shm/PostgreSQL.").map(|start| &line[start..]));
    paths.map(PathBuf::from).collect()
}

/// Sends the signal of this name without `SIG`, such as `KILL`.
pub fn signal(pid: i32, name: &str) {
    use nix::sys::signal::{Signal, kill};
    let signal: Signal = format!("SIG{name}").parse().unwrap();
    let _ = kill(nix::unistd::Pid::from_raw(pid), signal);
}

pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Starts a process that listens on `port` and ignores TERM, and records it in the home as the server of a killed
/// supervisor.
pub fn leave_stale_server(home: &Path, port: u16) -> std::process::Child {
    let script = format!(
        "import signal, socket, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n\
         s = socket.create_server(('127.0.0.1', {port}))\nprint('ready', flush=True)\ntime.sleep(600)"
    );
    let mut child = std::process::Command::new("python3")
        .args(["-c", &script])
        .current_dir(home)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let id = leoflow::sys::process::ProcessId::of(child.id() as i32).unwrap();
    let record = serde_json::json!({"children": [["server", id]]});
    fs::write(home.join("run/processes.json"), record.to_string()).unwrap();
    child
}
