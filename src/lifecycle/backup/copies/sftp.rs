//! An SFTP server as a place for copies, through OpenSSH's `sftp`: the keys, known hosts and options of the user's ssh
//! apply.

use super::CopyError;
use super::files::{Entry, in_file};
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::{disk, files};
use leoflow_base::sys::process::command;
use leoflow_components::wheel;
use std::fs;
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Options of ssh: never ask, and notice a connection that is dead.
const OPTIONS: [&str; 4] = ["BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4"];

/// Free disk space that a fetched copy leaves for the datastore, in bytes.
const KEEP_FREE: u64 = 256 * 1024 * 1024;

pub struct Sftp {
    destination: String,
    port: Option<u16>,
    /// The folder there.
    path: String,
}

impl Sftp {
    pub fn new(user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Self {
        // Brackets make an IPv6 address of it; without, sftp would take the part after a colon for a path.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let destination = user.map_or_else(|| host.clone(), |user| format!("{user}@{host}"));
        Self { destination, port, path: path.to_owned() }
    }

    fn file(&self, name: &str) -> String {
        quoted(&format!("{}/{name}", self.path))
    }

    fn part(&self, name: &str) -> String {
        self.file(&format!(".{name}.part"))
    }

    pub fn list(&self) -> Result<Vec<Entry>, CopyError> {
        let output = self.run(&[format!("cd {}", quoted(&self.path)), "ls -ln".to_owned()])?;
        Ok(output.lines().filter_map(entry).collect())
    }

    /// Uploads to a hidden name and renames it. `-l` keeps the rename from replacing a file.
    pub fn put(&self, file: &Path, name: &str) -> Result<String, CopyError> {
        let part = self.part(name);
        let uploaded = self.run(&[
            // An earlier part may be a link, or readable by others.
            format!("-rm {part}"),
            format!("put {} {part}", quoted(&file.to_string_lossy())),
            format!("chmod 600 {part}"),
        ]);
        checkpoint("copies.written");
        let renamed = uploaded.and_then(|_| self.run(&[format!("rename -l {part} {}", self.file(name))]));
        if let Err(error) = renamed {
            // The first error is the one to report.
            let _ = self.remove_part(name);
            return Err(error);
        }
        wheel::sha256_of(file).map_err(in_file(file))
    }

    /// Fetches the file into `scratch`, since `sftp` writes files only, and returns its hash.
    pub fn hash(&self, entry: &Entry, scratch: &Path) -> Result<String, CopyError> {
        let hashed = self.fetch(entry, scratch).and_then(|()| wheel::sha256_of(scratch).map_err(in_file(scratch)));
        files::remove_any(scratch).map_err(in_file(scratch))?;
        hashed
    }

    pub fn fetch(&self, entry: &Entry, to: &Path) -> Result<(), CopyError> {
        let free = disk::free_bytes(to).map_err(in_file(to))?;
        if free < entry.size.saturating_add(KEEP_FREE) {
            return Err(CopyError::NoSpace { path: to.to_owned(), free, size: entry.size });
        }
        self.run(&[format!("get {} {}", self.file(&entry.name), quoted(&to.to_string_lossy()))])?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o600)).map_err(in_file(to))
    }

    pub fn remove(&self, name: &str) -> Result<(), CopyError> {
        self.run(&[format!("rm {}", self.file(name))]).map(drop)
    }

    /// Removes what a failed or killed upload has left.
    pub fn remove_part(&self, name: &str) -> Result<(), CopyError> {
        self.run(&[format!("-rm {}", self.part(name))]).map(drop)
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

/// A path as an argument in a command of `sftp`, which takes `*`, `?` and `[` in quotes as they are.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_paths_are_those_of_sftp() {
        let line = "-rw-------    ? 1000     1000      4711234 Nov 30 07:36 my backup.tar.zst";
        assert_eq!(entry(line), Some(Entry { name: "my backup.tar.zst".to_owned(), size: 4_711_234 }));
        assert_eq!(entry("drwx------    2 1000     1000         4096 Nov 30  2025 old.tar.zst"), None);
        assert_eq!(entry("sftp> ls -ln"), None);
        assert_eq!(quoted("/a b[1]/\"x\".tar"), r#""/a b[1]/\"x\".tar""#);
    }
}
