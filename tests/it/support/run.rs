//! One run of tests: the test process of `cargo test`, or the runner that starts a process for each test, as
//! `cargo nextest` does. The files that a run's tests share are removed when the run ends.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Returns the pid that identifies this run: the value of LEOFLOW_TEST_RUN, the pid of nextest, or this process's own.
pub fn id() -> i32 {
    let configured = std::env::var("LEOFLOW_TEST_RUN").ok().and_then(|pid| pid.parse().ok());
    let is_process_per_test = std::env::var_os("NEXTEST").is_some();
    let own = || if is_process_per_test { nix::unistd::getppid().as_raw() } else { std::process::id() as i32 };
    configured.unwrap_or_else(own)
}

/// Removes the folders of `parent` named `prefix` and the pid of an ended run, whose cleaner process was killed.
pub fn remove_stale(parent: &Path, prefix: &str) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(prefix).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !super::processes::is_alive(pid)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Identifies a built program by its inode, size and modification time; hard links of a program are equal.
pub fn fingerprint(program: &Path) -> String {
    let meta = std::fs::metadata(program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    format!("{}-{}-{}", meta.ino(), meta.size(), meta.mtime_nsec() + 1_000_000_000 * meta.mtime())
}

/// Removes the folder when the run ends. Statics are never dropped, so another process waits for the end.
pub fn remove_at_end(folder: &Path) {
    let script = "(tail --pid=\"$1\" -f /dev/null && rm -rf \"$0\") &";
    let mut cleaner = Command::new("setsid");
    cleaner.args(["sh", "-c", script]).arg(folder).arg(id().to_string());
    cleaner.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}
