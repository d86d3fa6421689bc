//! Decides whether an import error counts against a release. During an upgrade a file may change, a service that it
//! calls may fail, and an import may time out on a busy machine. So an error counts only if the previous release still
//! imports the file and the new one does not.

use leoflow_base::home::Home;
use leoflow_base::protocol::child;
use leoflow_base::sys::blocking;
use leoflow_base::sys::process::command;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The programs of both releases.
#[derive(Debug, Clone)]
pub struct Releases {
    pub home: Home,
    pub before: PathBuf,
    pub new: PathBuf,
}

/// The result of importing a DAG file with one release.
#[derive(Debug, PartialEq, Eq)]
enum ImportResult {
    Imports,
    Refuses,
    /// The check took too long or could not run.
    Unknown,
}

/// Time limit for all files. A fault of a release usually affects several files, so a few checks are enough.
const TOTAL_LIMIT: Duration = Duration::from_secs(120);
/// Time limit for one file.
const FILE_LIMIT: Duration = Duration::from_secs(60);
const OUTPUT_LIMIT: u64 = 1024 * 1024;

impl Releases {
    /// The first of the failing `files` that the previous release imports and the new one does not.
    pub async fn evidence(&self, files: &[&str]) -> Option<String> {
        let deadline = Instant::now() + TOTAL_LIMIT;
        for file in files.iter().take_while(|_| Instant::now() < deadline) {
            let (releases, path) = (self.clone(), PathBuf::from(file));
            let is_evidence = blocking::run(move || {
                let imports = |program| releases.check(program, &path) == ImportResult::Imports;
                // Check the previous release twice: the file or its services may change during the checks.
                imports(&releases.before)
                    && releases.check(&releases.new, &path) == ImportResult::Refuses
                    && imports(&releases.before)
            });
            if is_evidence.await.unwrap_or(false) {
                return Some((*file).to_owned());
            }
        }
        None
    }

    /// Imports a file with a release's program.
    fn check(&self, program: &Path, file: &Path) -> ImportResult {
        let mut command = Command::new(program);
        command.arg("--home").arg(self.home.root()).arg("validate").arg(file);
        command.env_clear().envs(child::environment());
        match command::output_limited(&mut command, FILE_LIMIT, OUTPUT_LIMIT).map(|output| output.status.code()) {
            Ok(Some(0)) => ImportResult::Imports,
            Ok(Some(1)) => ImportResult::Refuses,
            _ => ImportResult::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn only_files_that_just_the_old_release_imports_are_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, refuses: &str| {
            let path = folder.path().join(name);
            let script = format!("#!/bin/sh\nfor last; do :; done\ncase $last in {refuses}) exit 1;; esac\n");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let releases = Releases {
            home: leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap(),
            before: program("before", "*/broken.py|*/healed.py"),
            new: program("new", "*/broken.py|*/lost.py"),
        };
        // Broken for both releases; fixed for both in the meantime; and a file that only the old release imports.
        assert_eq!(releases.evidence(&["/w/broken.py", "/w/fine.py", "/w/healed.py"]).await, None);
        assert_eq!(releases.evidence(&["/w/broken.py", "/w/lost.py"]).await, Some("/w/lost.py".to_owned()));
        let gone = Releases { before: folder.path().join("none"), ..releases };
        assert_eq!(gone.evidence(&["/w/lost.py"]).await, None);
    }
}
