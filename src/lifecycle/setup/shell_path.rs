//! Adds `bin/` to the PATH in the user's shell files, with permission. Each line ends with the comment `MARK` and the
//! receipt lists each file, so that uninstall removes exactly these lines.

use super::receipt::{Receipt, ReceiptError};
use super::uninstall::{MARK, SIZE_LIMIT};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use std::io;
use std::path::{Path, PathBuf};

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
}

/// A shell file, and whether to create it.
const SHELLS: [(&str, bool); 4] = [(".profile", true), (".bash_profile", false), (".bashrc", false), (".zshrc", false)];
const FISH: &str = ".config/fish/conf.d";

/// Adds the line where it is missing. An unwritable file does not prevent the others.
pub fn add_to_path(home: &Home, user_home: &Path) -> Result<Added, ShellError> {
    let bin = home.bin();
    let quoted = quoted(&bin).ok_or_else(|| ShellError::Unquotable(bin.clone()))?;
    let mut lines: Vec<(PathBuf, String)> = SHELLS
        .iter()
        .map(|(name, is_created)| (user_home.join(name), *is_created))
        .filter(|(path, is_created)| *is_created || path.exists())
        .map(|(path, _)| (path, format!("export PATH={quoted}:\"$PATH\"  {MARK}")))
        .collect();
    if user_home.join(FISH).is_dir() {
        lines.push((user_home.join(FISH).join("leoflow.fish"), format!("fish_add_path {quoted}  {MARK}")));
    }
    // The receipt first: after a kill it may list a file without our line, which uninstall leaves unchanged.
    if let Some(receipt) = Receipt::load(home)? {
        let mut shell_files = receipt.shell_files.clone();
        shell_files
            .extend(lines.iter().map(|(path, _)| path.clone()).filter(|path| !receipt.shell_files.contains(path)));
        Receipt { shell_files, ..receipt }.write(home)?;
    }
    let mut added = Added::default();
    for (path, line) in lines {
        match add_line(&path, &line) {
            Ok(()) => added.files.push(path),
            Err(error) => added.failed.push((path, error)),
        }
    }
    Ok(added)
}

/// Appends a line to a file that does not have it. A symbolic link stays; its target is changed.
fn add_line(path: &Path, line: &str) -> io::Result<()> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut bytes = files::read_regular(&target, SIZE_LIMIT)?.unwrap_or_default();
    if bytes.split(|byte| *byte == b'\n').any(|existing| existing == line.as_bytes()) {
        return Ok(());
    }
    let mode = files::mode(&target).unwrap_or(0o644);
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    files::write_atomic(&target, &bytes, mode)
}

/// Quotes a path in single quotes, which mean the same in every shell; `None` if that is impossible.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (!text.contains(['\'', '\n', '\\', ':'])).then(|| format!("'{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_a_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".profile");
        std::fs::write(&path, "a\nno end").unwrap();
        for _ in 0..2 {
            add_line(&path, "export X  # added by leoflow").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nno end\nexport X  # added by leoflow\n");
    }

    #[test]
    fn refuses_paths_that_need_escaping() {
        assert_eq!(quoted(Path::new("/a $b/\"c\"")).as_deref(), Some("'/a $b/\"c\"'"));
        for path in ["/it's", "/a\nb", "/a\\b", "/a:b"] {
            assert_eq!(quoted(Path::new(path)), None, "{path}");
        }
    }
}
