//! Finds the parts of the contract that a home uses: in its settings, environment variables, service file, scripts and
//! server log.

use super::effects::Uses;
use leoflow_base::config::Loaded;
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest script or service file that is read, in bytes.
const SCRIPT_LIMIT: u64 = 256 * 1024;
/// The largest log that is read, in bytes: twice the size at which logs are rotated.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
const METHODS: [&str; 5] = ["GET", "POST", "PATCH", "PUT", "DELETE"];

/// Gathers the uses. An unreadable file counts as empty.
pub fn gather(home: &Home, settings: &Loaded, service_file: Option<&Path>) -> Uses {
    let mut scripts: Vec<PathBuf> = service_file.map(Path::to_owned).into_iter().collect();
    scripts.extend(shell_scripts(home.root()));
    scripts.extend(shell_scripts(&home.root().join("scripts")));
    Uses {
        settings: settings.origins.keys().cloned().chain(settings.written_keys()).collect(),
        variables: variables(),
        scripts: scripts.iter().filter_map(|path| files::read_text(path, SCRIPT_LIMIT).ok().flatten()).collect(),
        requests: files::read_text(&home.logs().join("server.log"), LOG_LIMIT)
            .ok()
            .flatten()
            .map(|log| requests(&log))
            .unwrap_or_default(),
    }
}

/// The user's own scripts in a folder.
fn shell_scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|name| name == "sh")).collect()
}

/// Names of this process's environment variables.
fn variables() -> BTreeSet<String> {
    env_vars::all().into_iter().filter_map(|(name, _)| name.into_string().ok()).collect()
}

/// API requests in a server log. The server logs them at level `debug`: `GET /api/v2/dags: 200 in 3 ms`.
fn requests(log: &str) -> BTreeSet<String> {
    let mut requests = BTreeSet::new();
    for line in log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let request = words.windows(2).find(|pair| METHODS.contains(&pair[0]) && pair[1].starts_with("/api/"));
        requests.extend(request.map(|pair| format!("{} {}", pair[0], pair[1].trim_end_matches(':'))));
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_from_the_log() {
        let log = "2026-11-26T10:00:00Z DEBUG server: GET /api/v2/dags: 200 in 3 ms\n\
                   2026-11-26T10:00:01Z INFO  server: GET ready\n\
                   2026-11-26T10:00:02Z DEBUG server: POST /api/v2/dags/a/dagRuns: 200 in 9 ms\n\
                   2026-11-26T10:00:03Z DEBUG server: GET /ui/dags: 200 in 9 ms\n";
        let expected = ["GET /api/v2/dags", "POST /api/v2/dags/a/dagRuns"];
        assert_eq!(requests(log), expected.map(str::to_owned).into());
    }

    #[test]
    fn only_shell_scripts_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nightly.sh", "config.yaml", "notes"] {
            fs::write(folder.path().join(name), "leoflow lite backup --output x").unwrap();
        }
        assert_eq!(shell_scripts(folder.path()), [folder.path().join("nightly.sh")]);
        assert_eq!(shell_scripts(&folder.path().join("absent")), [] as [PathBuf; 0]);
    }
}
