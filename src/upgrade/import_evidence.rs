//! Whether a DAG file that cannot be imported any more speaks against a release. Files change while an upgrade is under way,
//! services that they ask go away, and a busy machine makes imports time out: only a file that the release before still
//! imports, and the new one does not, at the same time, is evidence.

use crate::home::Home;
use crate::protocol::child;
use crate::sys::{blocking, command};
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

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Imports,
    Refuses,
    /// It took too long, or could not be asked.
    Unknown,
}

/// How long files are asked about; a fault of a release is not in one file alone.
const PATIENCE: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(60);
const OUTPUT_LIMIT: u64 = 1024 * 1024;

impl Releases {
    /// Of files that cannot be imported, the first that the release before imports and the new one does not.
    pub async fn evidence(&self, files: &[&str]) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        for file in files.iter().take_while(|_| Instant::now() < deadline) {
            let (releases, path) = (self.clone(), PathBuf::from(file));
            let asked = blocking::run(move || {
                let imports = |program| releases.ask(program, &path) == Answer::Imports;
                // Once more at the end: what the world has changed meanwhile is no release's fault.
                imports(&releases.before)
                    && releases.ask(&releases.new, &path) == Answer::Refuses
                    && imports(&releases.before)
            });
            if asked.await.unwrap_or(false) {
                return Some((*file).to_owned());
            }
        }
        None
    }

    fn ask(&self, program: &Path, file: &Path) -> Answer {
        let mut command = Command::new(program);
        command.arg("--home").arg(self.home.root()).arg("validate").arg(file);
        command.env_clear().envs(child::environment());
        match command::output_limited(&mut command, LIMIT, OUTPUT_LIMIT).map(|output| output.status.code()) {
            Ok(Some(0)) => Answer::Imports,
            Ok(Some(1)) => Answer::Refuses,
            _ => Answer::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn only_what_the_old_release_imports_and_the_new_one_does_not_is_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, refuses: &str| {
            let path = folder.path().join(name);
            let script = format!("#!/bin/sh\nfor last; do :; done\ncase $last in {refuses}) exit 1;; esac\n");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let releases = Releases {
            home: crate::home::resolve(Some(&folder.path().join("h"))).unwrap(),
            before: program("before", "*/broken.py|*/healed.py"),
            new: program("new", "*/broken.py|*/lost.py"),
        };
        // Broken for both; well again for both by now; and one that only the old release imports.
        assert_eq!(releases.evidence(&["/w/broken.py", "/w/fine.py", "/w/healed.py"]).await, None);
        assert_eq!(releases.evidence(&["/w/broken.py", "/w/lost.py"]).await, Some("/w/lost.py".to_owned()));
        let gone = Releases { before: folder.path().join("none"), ..releases };
        assert_eq!(gone.evidence(&["/w/lost.py"]).await, None);
    }
}
