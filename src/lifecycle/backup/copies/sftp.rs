//! An SFTP server as a place for copies, through OpenSSH's `sftp`: the keys, known hosts and options of the user's ssh
//! apply.

use super::CopyError;
use super::files::{Entry, copy_file, hash_file};
use crate::backup::format::manifest::Sha256Hex;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::command;
use std::fs;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Options of ssh: never ask, and notice a connection that is dead.
const OPTIONS: [&str; 4] = ["BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4"];

pub struct Sftp {
    destination: String,
    port: Option<u16>,
    /// The folder there.
    path: String,
    scratch: PathBuf,
}

impl Sftp {
    pub fn new(user: Option<&str>, host: &str, port: Option<u16>, path: &str, scratch: &Path) -> Self {
        // Brackets make an IPv6 address of it; without, sftp would take the part after a colon for a path.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let destination = user.map_or_else(|| host.clone(), |user| format!("{user}@{host}"));
        Self { destination, port, path: path.to_owned(), scratch: scratch.to_owned() }
    }

    fn file(&self, name: &str) -> String {
        quoted(&format!("{}/{name}", self.path))
    }

    pub fn list(&self) -> Result<Vec<Entry>, CopyError> {
        let output = self.run(&[format!("cd {}", quoted(&self.path)), "ls -ln".to_owned()])?;
        Ok(output.lines().filter_map(entry).collect())
    }

    /// Uploads to a hidden name and renames it.
    pub fn put(&self, file: &Path, name: &str) -> Result<Sha256Hex, CopyError> {
        let part = format!(".{name}.part");
        self.run(&[
            format!("put {} {}", quoted(&file.to_string_lossy()), self.file(&part)),
            format!("chmod 600 {}", self.file(&part)),
        ])?;
        checkpoint("copies.written");
        self.run(&[format!("rename {} {}", self.file(&part), self.file(name))])?;
        hash_file(file)
    }

    /// Fetches into the scratch folder first: `sftp` writes files only.
    pub fn read(&self, name: &str, sink: &mut impl Write) -> Result<(), CopyError> {
        let in_scratch = |source| CopyError::File { path: self.scratch.clone(), source };
        files::create_private_dir(&self.scratch).map_err(in_scratch)?;
        let fetched = self.scratch.join(format!("{name}.part"));
        let command = format!("get {} {}", self.file(name), quoted(&fetched.to_string_lossy()));
        let read = self.run(&[command]).and_then(|_| copy_file(&fetched, sink).map_err(in_scratch));
        files::remove_any(&fetched)
            .and_then(|()| fs::remove_dir(&self.scratch).or_else(is_in_use))
            .map_err(in_scratch)?;
        read
    }

    pub fn remove(&self, name: &str) -> Result<(), CopyError> {
        self.run(&[format!("rm {}", self.file(name))]).map(drop)
    }

    /// Runs commands of `sftp`, which ends at the first that fails; returns its output.
    fn run(&self, commands: &[String]) -> Result<String, CopyError> {
        let mut sftp = Command::new("sftp");
        sftp.args(["-q", "-b", "-"]);
        OPTIONS.iter().for_each(|option| _ = sftp.args(["-o", option]));
        if let Some(port) = self.port {
            sftp.arg("-P").arg(port.to_string());
        }
        let mut start = || {
            let mut batch = files::in_memory("sftp")?;
            commands.iter().try_for_each(|command| writeln!(batch, "{command}"))?;
            batch.rewind()?;
            command::dies_with_this_thread(&mut sftp);
            sftp.arg(&self.destination).stdin(batch).stdout(Stdio::piped()).stderr(Stdio::piped());
            command::spawn(&mut sftp)?.wait_with_output()
        };
        let output = start().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CopyError::NoSftp,
            _ => CopyError::Sftp(error.to_string()),
        })?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(CopyError::Sftp(command::failure(&String::from_utf8_lossy(&output.stderr), output.status))),
        }
    }
}

/// A path as an argument in a command of `sftp`.
fn quoted(path: &str) -> String {
    let escaped: String =
        path.chars().flat_map(|c| ['"', '\\'].contains(&c).then_some('\\').into_iter().chain([c])).collect();
    // Also keeps `*` and `?` from being patterns.
    format!("\"{}\"", escaped.replace('*', "\\*").replace('?', "\\?").replace('[', "\\["))
}

/// A line of `ls -ln`: mode, links, owner, group, size, three columns of the date, name.
fn entry(line: &str) -> Option<Entry> {
    let mut rest = line.trim_start();
    let mut columns = Vec::new();
    for _ in 0..8 {
        let (column, after) = rest.split_once(' ')?;
        columns.push(column);
        rest = after.trim_start();
    }
    let is_file = columns[0].starts_with('-');
    is_file.then_some(Entry { name: rest.to_owned(), size: columns[4].parse().ok()? })
}

/// Another backup may be in the folder.
fn is_in_use(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::DirectoryNotEmpty { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_paths_are_those_of_sftp() {
        let line = "-rw-------    ? 1000     1000      4711234 Nov 30 07:36 my backup.tar.zst";
        assert_eq!(entry(line), Some(Entry { name: "my backup.tar.zst".to_owned(), size: 4_711_234 }));
        assert_eq!(entry("drwx------    2 1000     1000         4096 Nov 30  2025 old.tar.zst"), None);
        assert_eq!(entry("sftp> ls -ln"), None);
        assert_eq!(quoted("/a b/\"x\".tar"), r#""/a b/\"x\".tar""#);
    }
}
