//! Detects another `leoflow` that the shell finds before the installed one.

use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::command;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCopy {
    pub path: PathBuf,
    /// `None` if the program does not report a version.
    pub version: Option<String>,
}

/// Time limit of `leoflow version`.
const LIMIT: Duration = Duration::from_secs(5);
/// Size limit of its output, in bytes.
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// Returns the first `leoflow` on the PATH if its version differs from the installed one.
pub fn other_copy(home: &Home) -> Option<OtherCopy> {
    let installed = home.bin().join("leoflow").canonicalize().ok()?;
    let path = first_on_path()?;
    if path.canonicalize().is_ok_and(|canonical| canonical == installed) {
        return None;
    }
    let version = version_of(&path);
    let is_same = version.is_some() && version == version_of(&installed);
    (!is_same).then_some(OtherCopy { path, version })
}

impl OtherCopy {
    /// Warning for the user, one sentence.
    pub fn warning(&self, home: &Home) -> String {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        format!(
            "the shell finds another leoflow first: {} ({version}); the installed one is {}",
            self.path.display(),
            home.bin().join("leoflow").display()
        )
    }
}

/// The `leoflow` that the shell finds.
pub fn first_on_path() -> Option<PathBuf> {
    first_leoflow_in(&env_vars::search_path())
}

fn first_leoflow_in(folders: &[PathBuf]) -> Option<PathBuf> {
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    folders.iter().map(|folder| folder.join("leoflow")).find(is_program)
}

fn version_of(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.args(["version", "--json"]).env_clear();
    let output = command::output_limited(&mut command, LIMIT, OUTPUT_LIMIT).ok()?;
    let output: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    output["version"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_executable() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["a", "b", "c"].map(|name| folder.path().join(name));
        folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        std::fs::create_dir(folders[0].join("leoflow")).unwrap();
        std::fs::write(folders[1].join("leoflow"), "text").unwrap();
        assert_eq!(first_leoflow_in(&folders), None);
        let script = "#!/bin/sh\necho '{\"version\": \"0.1.0\"}'\n";
        let program = folders[2].join("leoflow");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(first_leoflow_in(&folders), Some(program.clone()));
        assert_eq!(version_of(&program).as_deref(), Some("0.1.0"));
    }
}
