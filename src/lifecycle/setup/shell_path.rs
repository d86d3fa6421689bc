//! Adds `bin/` to the PATH in the user's shell files, if the user agrees. Each added line ends with the comment `MARK`
//! and the receipt lists each file, so that uninstall removes exactly these lines.

use super::receipt::{Receipt, ReceiptError};
use super::uninstall::{MARK, SIZE_LIMIT};
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::command;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("cannot quote {0} for a shell file")]
    Unquotable(PathBuf),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

/// Files that have the line now, and files that could not be written.
#[derive(Debug, Default)]
pub struct Added {
    pub files: Vec<PathBuf>,
    pub failed: Vec<(PathBuf, io::Error)>,
    /// The user's own shell if Leoflow does not know which file it reads.
    pub unsupported_shell: Option<String>,
}

/// The shells whose files Leoflow knows. `Sh` stands for every shell that reads only `.profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    Sh,
    Bash,
    Zsh,
    Fish,
    Unknown,
}

impl Shell {
    /// The shell with this program, such as `/bin/zsh`.
    fn of(program: &Path) -> Self {
        match program.file_name().and_then(|name| name.to_str()) {
            Some("bash" | "rbash") => Self::Bash,
            Some("zsh") => Self::Zsh,
            Some("fish") => Self::Fish,
            Some("sh" | "dash" | "ash" | "busybox" | "ksh" | "ksh93" | "mksh" | "oksh" | "posh" | "yash") | None => {
                Self::Sh
            }
            Some(_) => Self::Unknown,
        }
    }
}

/// The shell of the user and where it looks for its files.
struct UserShell {
    program: PathBuf,
    user_home: PathBuf,
    /// `ZDOTDIR`, where zsh finds `.zshrc`.
    zsh_folder: PathBuf,
    /// `XDG_CONFIG_HOME`, below which fish finds its files.
    config_folder: PathBuf,
}

impl UserShell {
    /// Reads the environment. Runs zsh to find a `ZDOTDIR` that only `~/.zshenv` sets.
    fn detect(user_home: &Path) -> Self {
        let program = env_vars::path("SHELL").unwrap_or_default();
        let zsh_folder = env_vars::path("ZDOTDIR").or_else(|| zdotdir_of(&program));
        let config_folder = env_vars::path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        Self {
            program,
            user_home: user_home.to_owned(),
            zsh_folder: zsh_folder.filter(|path| path.is_absolute()).unwrap_or_else(|| user_home.to_owned()),
            config_folder: config_folder.unwrap_or_else(|| user_home.join(".config")),
        }
    }

    /// The files that get the line, each with the shell that reads it: all existing files, because a user may have
    /// several shells, and missing files of the user's own shell.
    fn files(&self) -> Vec<(Shell, PathBuf)> {
        let own = Shell::of(&self.program);
        let mut files = Vec::new();
        // A login bash reads the first existing file of `.bash_profile`, `.bash_login` and `.profile`; an interactive
        // one reads `.bashrc`. Other shells and desktops read `.profile` too.
        for (shell, name) in [(Shell::Bash, ".bash_profile"), (Shell::Bash, ".bash_login"), (Shell::Bash, ".bashrc")] {
            let path = self.user_home.join(name);
            if path.exists() || own == Shell::Bash && name == ".bashrc" {
                files.push((shell, path));
            }
        }
        let profile = self.user_home.join(".profile");
        if profile.exists() || matches!(own, Shell::Sh | Shell::Bash | Shell::Unknown) {
            files.push((Shell::Sh, profile));
        }
        for folder in [&self.zsh_folder, &self.user_home] {
            let path = folder.join(".zshrc");
            let is_own = own == Shell::Zsh && *folder == self.zsh_folder;
            if (path.exists() || is_own) && !files.iter().any(|(_, other)| *other == path) {
                files.push((Shell::Zsh, path));
            }
        }
        let fish = self.config_folder.join("fish");
        if fish.is_dir() || own == Shell::Fish {
            files.push((Shell::Fish, fish.join("conf.d/leoflow.fish")));
        }
        files
    }
}

/// Runs zsh to read `ZDOTDIR`; `None` for another shell, or if zsh does not finish within two seconds.
fn zdotdir_of(program: &Path) -> Option<PathBuf> {
    if Shell::of(program) != Shell::Zsh {
        return None;
    }
    let mut zsh = Command::new(program);
    // `.zshenv` may print text first, so the value is printed as the last line.
    zsh.args(["-c", "printf '\\n%s' \"$ZDOTDIR\""]);
    let output = command::output_within(&mut zsh, Duration::from_secs(2)).ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    answer.rsplit('\n').next().filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Adds the line to each file that lacks it. A file that cannot be written is reported in `Added::failed`.
///
/// # Errors
/// Changes nothing if the path cannot be quoted or the receipt cannot be updated.
pub fn add_to_path(home: &Home, user_home: &Path) -> Result<Added, ShellError> {
    add_for(home, &UserShell::detect(user_home))
}

fn add_for(home: &Home, user_shell: &UserShell) -> Result<Added, ShellError> {
    let bin = home.bin();
    let quoted = quoted(&bin).ok_or_else(|| ShellError::Unquotable(bin.clone()))?;
    let files = user_shell.files();
    let own = Shell::of(&user_shell.program);
    let has_own = files.iter().any(|(shell, _)| *shell == own);
    // Write the receipt first: after a kill it may list a file without our line, and uninstall does not change such a
    // file.
    if let Some(receipt) = Receipt::load(home)? {
        let mut shell_files = receipt.shell_files.clone();
        shell_files
            .extend(files.iter().map(|(_, path)| path.clone()).filter(|path| !receipt.shell_files.contains(path)));
        Receipt { shell_files, ..receipt }.write(home)?;
    }
    let unsupported_shell = (!has_own).then(|| user_shell.program.display().to_string());
    let mut added = Added { unsupported_shell, ..Added::default() };
    for (shell, path) in files {
        let line = match shell {
            Shell::Fish => format!("fish_add_path {quoted}  {MARK}"),
            _ => format!("export PATH={quoted}:\"$PATH\"  {MARK}"),
        };
        match add_line(&path, &line) {
            Ok(()) => added.files.push(path),
            Err(error) => added.failed.push((path, error)),
        }
    }
    Ok(added)
}

/// Appends a line to a file that lacks it. Writes in place, so that the file keeps its owner, mode and hard links.
/// Follows a symbolic link.
fn add_line(path: &Path, line: &str) -> io::Result<()> {
    let bytes = files::read_regular(&path.canonicalize().unwrap_or_else(|_| path.to_owned()), SIZE_LIMIT)?;
    let bytes = bytes.unwrap_or_default();
    if bytes.split(|byte| *byte == b'\n').any(|existing| existing == line.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let separator = if bytes.is_empty() || bytes.ends_with(b"\n") { "" } else { "\n" };
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{separator}{line}\n").as_bytes())?;
    files::sync(&file)
}

/// Quotes a path in single quotes, which mean the same in every shell; `None` if that is impossible.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (!text.contains(['\'', '\n', '\\', ':'])).then(|| format!("'{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::home;
    use std::os::unix::fs::MetadataExt;

    /// A user with these files and this shell; `zsh` and `config` are below the home.
    fn user(folder: &Path, shell: &str, existing: &[&str]) -> UserShell {
        for name in existing {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "# mine\n").unwrap();
        }
        UserShell {
            program: PathBuf::from(shell),
            user_home: folder.to_owned(),
            zsh_folder: folder.to_owned(),
            config_folder: folder.join(".config"),
        }
    }

    fn names(user: &UserShell) -> Vec<String> {
        let name = |(_, path): (Shell, PathBuf)| path.strip_prefix(&user.user_home).unwrap().display().to_string();
        user.files().into_iter().map(name).collect()
    }

    #[test]
    fn the_users_own_shell_gets_the_line() {
        let new = || tempfile::tempdir().unwrap();
        let folder = new();
        assert_eq!(names(&user(folder.path(), "/usr/bin/zsh", &[])), [".zshrc"]);
        let zsh = UserShell { zsh_folder: folder.path().join("z"), ..user(folder.path(), "/bin/zsh", &["z/.zshrc"]) };
        assert_eq!(names(&zsh), ["z/.zshrc"]);
        let folder = new();
        assert_eq!(names(&user(folder.path(), "/usr/bin/fish", &[])), [".config/fish/conf.d/leoflow.fish"]);
        let fish = UserShell { config_folder: folder.path().join("c"), ..user(folder.path(), "/bin/fish", &[]) };
        assert_eq!(names(&fish), ["c/fish/conf.d/leoflow.fish"]);
        assert_eq!(names(&user(new().path(), "/bin/bash", &[".bash_login"])), [".bash_login", ".bashrc", ".profile"]);
        assert_eq!(names(&user(new().path(), "/bin/sh", &[])), [".profile"]);
        // Other shells of the user are served where they have files.
        let folder = new();
        let all = user(folder.path(), "/bin/sh", &[".bashrc", ".zshrc", ".config/fish/config.fish"]);
        assert_eq!(names(&all), [".bashrc", ".profile", ".zshrc", ".config/fish/conf.d/leoflow.fish"]);
    }

    #[test]
    fn a_shell_without_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = home::resolve(Some(&folder.path().join("home"))).unwrap();
        let added = add_for(&home, &user(folder.path(), "/usr/bin/nu", &[])).unwrap();
        assert_eq!(added.unsupported_shell.as_deref(), Some("/usr/bin/nu"));
        assert_eq!(added.files, [folder.path().join(".profile")]);
        // A file that cannot be written is reported, and the others are served.
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".zshrc")).unwrap();
        let added = add_for(&home, &user(folder.path(), "/usr/bin/zsh", &[".profile"])).unwrap();
        assert_eq!((added.files.len(), added.failed.len(), added.unsupported_shell), (1, 1, None));
    }

    #[test]
    fn adds_a_line_once_and_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other_name) = (folder.path().join(".profile"), folder.path().join("dotfiles"));
        fs::write(&path, "a\nno end").unwrap();
        fs::hard_link(&path, &other_name).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        for _ in 0..2 {
            add_line(&path, "export X  # added by leoflow").unwrap();
        }
        assert_eq!(fs::read_to_string(&other_name).unwrap(), "a\nno end\nexport X  # added by leoflow\n");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn refuses_paths_that_need_escaping() {
        assert_eq!(quoted(Path::new("/a $b/\"c\"")).as_deref(), Some("'/a $b/\"c\"'"));
        for path in ["/it's", "/a\nb", "/a\\b", "/a:b"] {
            assert_eq!(quoted(Path::new(path)), None, "{path}");
        }
    }
}
