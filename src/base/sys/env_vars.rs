//! Reads the process's environment and arguments. No other module reads them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, io};

use super::is_portable;

/// A variable as text; `None` when unset, empty or not UTF-8.
pub fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable as a path; `None` when unset or empty.
pub fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// True when a variable is set and not empty, as in <https://no-color.org>.
pub fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// The user's home directory: `HOME`, else the passwd entry. `None` in a container without either.
pub fn user_home() -> Option<PathBuf> {
    dirs::home_dir().filter(|home| home.is_absolute())
}

/// The folders of `PATH`; when it is unset, the usual folders of programs, which shells search then.
pub fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path).collect()
}

/// The folder for temporary files: `TMPDIR`, else `/tmp`; on macOS, else that of the user.
pub fn temporary_folder() -> PathBuf {
    env::temp_dir()
}

/// The arguments of this process, with the program's name first.
pub fn arguments() -> Vec<OsString> {
    env::args_os().collect()
}

/// The running executable, with links resolved. `/proc/self/exe` once a package manager has replaced or removed its file:
/// a child that this process starts by that name still runs the same program, not the new one.
pub fn current_exe() -> io::Result<PathBuf> {
    if is_portable() {
        return Ok(running_program().to_owned());
    }
    env::current_exe().map(|path| if removed_path(&path).is_some() { running_program().to_owned() } else { path })
}

/// In a request to a process: that process's own program, its [`running_program`].
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// The program of the process that opens it, even after its file was replaced or removed: proc_pid_exe(5). In the portable
/// half, the file that this process was started from, with links resolved; once that file was removed, the path of its
/// start, where a package manager may have put another program.
pub fn running_program() -> &'static Path {
    static PATHS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    if !is_portable() {
        return Path::new(OWN_PROGRAM);
    }
    let [file, path] = PATHS.get_or_init(|| {
        let path = started_from().unwrap_or_else(|_| OWN_PROGRAM.into());
        [path.canonicalize().unwrap_or_else(|_| path.clone()), path]
    });
    if file.exists() { file } else { path }
}

/// Where the running executable was when it started. Linux resolves links.
pub fn started_from() -> io::Result<PathBuf> {
    env::current_exe().map(|path| removed_path(&path).unwrap_or(path))
}

/// The path of a removed file, from the text of its link in `/proc`: proc_pid_exe(5).
fn removed_path(link: &Path) -> Option<PathBuf> {
    let path = link.as_os_str().as_bytes().strip_suffix(b" (deleted)")?;
    (!link.exists()).then(|| PathBuf::from(OsStr::from_bytes(path)))
}

/// The current folder was removed, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the current folder no longer exists: {0}")]
pub struct NoCurrentFolder(io::Error);

/// Resolves a relative path against the current folder. An absolute one needs no current folder.
pub fn absolute(path: &Path) -> Result<PathBuf, NoCurrentFolder> {
    Ok(if path.is_absolute() { path.to_owned() } else { current_dir().map_err(NoCurrentFolder)?.join(path) })
}

pub fn current_dir() -> io::Result<PathBuf> {
    env::current_dir()
}

/// The whole environment of this process.
pub fn all() -> Vec<(OsString, OsString)> {
    env::vars_os().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_paths_need_the_current_folder() {
        assert_eq!(absolute(Path::new("/a/../b")).unwrap(), Path::new("/a/../b"));
        assert_eq!(absolute(Path::new("a")).unwrap(), current_dir().unwrap().join("a"));
    }
}
