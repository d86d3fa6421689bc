//! Putting `bin/` on the PATH in the user's shell files, when the user allows it. Each line ends in our mark, and
//! the receipt names each file, so that uninstall takes out exactly these.

use super::receipt::{Receipt, ReceiptError};
use super::uninstall::{MARK, SIZE_LIMIT};
use crate::home::Home;
use crate::sys::files;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("{0} cannot be put into a shell file as it is")]
    Unquotable(PathBuf),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

/// The files that have the line now, and those that could not be written.
#[derive(Debug, Default)]
pub struct Added {
    pub files: Vec<PathBuf>,
    pub failed: Vec<(PathBuf, io::Error)>,
}

/// A file of a shell, and whether it is made when it is not there.
const SHELLS: [(&str, bool); 4] = [(".profile", true), (".bash_profile", false), (".bashrc", false), (".zshrc", false)];
const FISH: &str = ".config/fish/conf.d";

/// Adds the line where it is not there yet. A file that cannot be written does not keep the others from it.
pub fn add_to_path(home: &Home, user_home: &Path) -> Result<Added, ShellError> {
    let bin = home.bin();
    let quoted = quoted(&bin).ok_or_else(|| ShellError::Unquotable(bin.clone()))?;
    let mut wanted: Vec<(PathBuf, String)> = SHELLS
        .iter()
        .map(|(name, made)| (user_home.join(name), *made))
        .filter(|(path, made)| *made || path.exists())
        .map(|(path, _)| (path, format!("export PATH={quoted}:\"$PATH\"  {MARK}")))
        .collect();
    if user_home.join(FISH).is_dir() {
        wanted.push((user_home.join(FISH).join("leoflow.fish"), format!("fish_add_path {quoted}  {MARK}")));
    }
    // First: killed after it, a file without our line is named, which uninstall leaves as it is.
    if let Some(receipt) = Receipt::load(home)? {
        let mut shell_files = receipt.shell_files.clone();
        shell_files
            .extend(wanted.iter().map(|(path, _)| path.clone()).filter(|path| !receipt.shell_files.contains(path)));
        Receipt { shell_files, ..receipt }.write(home)?;
    }
    let mut added = Added::default();
    for (path, line) in wanted {
        match add_line(&path, &line) {
            Ok(()) => added.files.push(path),
            Err(error) => added.failed.push((path, error)),
        }
    }
    Ok(added)
}

/// A link stays a link: what it leads to is changed.
fn add_line(path: &Path, line: &str) -> io::Result<()> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut bytes = files::read_regular(&real, SIZE_LIMIT)?.unwrap_or_default();
    if bytes.split(|byte| *byte == b'\n').any(|found| found == line.as_bytes()) {
        return Ok(());
    }
    let mode = files::mode(&real).unwrap_or(0o644);
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    files::write_atomic(&real, &bytes, mode)
}

/// In single quotes, which every shell reads the same.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (!text.contains(['\'', '\n', '\\', ':'])).then(|| format!("'{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_added_once_and_nothing_else_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".profile");
        std::fs::write(&path, "a\nno end").unwrap();
        for _ in 0..2 {
            add_line(&path, "export X  # added by leoflow").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nno end\nexport X  # added by leoflow\n");
    }

    #[test]
    fn what_a_shell_could_misread_is_not_written() {
        assert_eq!(quoted(Path::new("/a $b/\"c\"")).as_deref(), Some("'/a $b/\"c\"'"));
        for odd in ["/it's", "/a\nb", "/a\\b", "/a:b"] {
            assert_eq!(quoted(Path::new(odd)), None, "{odd}");
        }
    }
}
