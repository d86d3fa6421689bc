//! Another `leoflow` that the shell finds before the installed one.

use crate::home::Home;
use crate::sys::{command, env_vars};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCopy {
    pub path: PathBuf,
    /// `None` where it does not say.
    pub version: Option<String>,
}

const LIMIT: Duration = Duration::from_secs(5);
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// The first `leoflow` on the PATH, where it is of another version than the installed one.
pub fn other_copy(home: &Home) -> Option<OtherCopy> {
    let installed = home.bin().join("leoflow").canonicalize().ok()?;
    let path = first_on(&env_vars::search_path())?;
    if path.canonicalize().is_ok_and(|found| found == installed) {
        return None;
    }
    let version = version_of(&path);
    let is_same = version.is_some() && version == version_of(&installed);
    (!is_same).then_some(OtherCopy { path, version })
}

impl OtherCopy {
    /// What a user should know, in one sentence.
    pub fn warning(&self, home: &Home) -> String {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        format!(
            "the shell finds another leoflow first: {} ({version}); the installed one is {}",
            self.path.display(),
            home.bin().join("leoflow").display()
        )
    }
}

fn first_on(folders: &[PathBuf]) -> Option<PathBuf> {
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    folders.iter().map(|folder| folder.join("leoflow")).find(is_program)
}

fn version_of(program: &Path) -> Option<String> {
    let mut asked = Command::new(program);
    asked.args(["version", "--json"]).env_clear();
    let output = command::output_limited(&mut asked, LIMIT, OUTPUT_LIMIT).ok()?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    said["version"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_can_be_run_counts() {
        let folder = tempfile::tempdir().unwrap();
        let places = ["a", "b", "c"].map(|name| folder.path().join(name));
        places.iter().for_each(|place| std::fs::create_dir(place).unwrap());
        std::fs::create_dir(places[0].join("leoflow")).unwrap();
        std::fs::write(places[1].join("leoflow"), "text").unwrap();
        assert_eq!(first_on(&places), None);
        let script = "#!/bin/sh\necho '{\"version\": \"0.1.0\"}'\n";
        let program = places[2].join("leoflow");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(first_on(&places), Some(program.clone()));
        assert_eq!(version_of(&program).as_deref(), Some("0.1.0"));
    }
}
