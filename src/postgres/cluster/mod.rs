//! The data directory. `initdb` creates it in a staging folder that is then renamed, so that it is complete or absent.

pub mod leftovers;
pub mod private;
pub mod provision;
pub mod server;

use super::install::tools::unprivileged_command;
use super::location::{self, Kind};
use super::{Credentials, INITDB, Installation, MAJOR, SUPERUSER};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::disk::{self, Shortage};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::user_namespace::Identity;
use leoflow_base::sys::process::{self, command, limits};
use leoflow_base::sys::{checkpoint, random};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterState {
    Absent,
    /// A cluster of the supported major version.
    Ready,
    OtherMajor(String),
    /// The folder contains something other than a cluster.
    NotACluster(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// initdb failed, and the disk is full or can have no more files.
    #[error("initdb failed for lack of disk space or files: {text}")]
    DiskFull { path: PathBuf, shortage: Shortage, text: String },
    /// initdb starts programs of its folder by a shell, in double quotes.
    #[error("the path {0} contains `$` or a backquote, which the shell that PostgreSQL's initdb starts would expand")]
    ShellPath(PathBuf),
    #[error("PostgreSQL refuses to run as this user, and a user namespace, the workaround, is not permitted: {0}")]
    NoUserNamespace(String),
}

/// PostgreSQL's `FirstNormalObjectId`: `initdb` creates objects with lower ids only.
const FIRST_NORMAL_OBJECT_ID: u32 = 16_384;

/// True for a managed cluster in which no database was created since `initdb`, judged by its files.
pub fn is_new(home: &Home) -> bool {
    let ids =
        |entries: std::fs::ReadDir| entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    location::kind(home) == Kind::Managed
        && std::fs::read_dir(home.postgres_data().join("base"))
            .is_ok_and(|entries| ids(entries).all(|id: u32| id < FIRST_NORMAL_OBJECT_ID))
}

/// Inspects `managed-postgres/data` without changing it. Other kinds of datastore count as ready: their server reports
/// its state.
pub fn state(home: &Home) -> ClusterState {
    if location::kind(home) != Kind::Managed {
        return ClusterState::Ready;
    }
    let data = home.postgres_data();
    if std::fs::symlink_metadata(&data).is_err() {
        return ClusterState::Absent;
    }
    let text = match files::read_text(&data.join("PG_VERSION"), 64) {
        Ok(Some(text)) => text.trim().to_owned(),
        Ok(None) => return ClusterState::NotACluster("PG_VERSION is missing".to_owned()),
        Err(error) => return ClusterState::NotACluster(format!("cannot read PG_VERSION: {error}")),
    };
    match text.parse::<u32>() {
        Ok(MAJOR) if data.join("global/pg_control").is_file() => ClusterState::Ready,
        Ok(MAJOR) => ClusterState::NotACluster("global/pg_control is missing".to_owned()),
        Ok(_) => ClusterState::OtherMajor(text),
        Err(_) => ClusterState::NotACluster(format!("PG_VERSION contains {text:?}")),
    }
}

/// Prefix of the names of staging folders.
const STAGING: &str = ".data-staging-";

/// Creates the cluster. The caller holds the home's lock and has verified that there is none.
pub fn create(
    home: &Home,
    installation: &Installation,
    credentials: &Credentials,
    identity: &Identity,
) -> Result<(), ClusterError> {
    let io = |source| ClusterError::Io { path: home.postgres(), source };
    remove_killed_attempts(home).map_err(io)?;
    let staging = home.postgres().join(format!("{STAGING}{}", std::process::id()));
    let result = initdb(&installation.bin, credentials.superuser_password().unwrap_or_default(), identity, &staging);
    if result.is_err() {
        // The next attempt removes what remains.
        let _ = files::remove_any(&staging);
    }
    result?;
    checkpoint("cluster.initialised");
    files::rename_durably(&staging, &home.postgres_data()).map_err(io)?;
    checkpoint("cluster.in-place");
    Ok(())
}

/// Creates a cluster in `folder` and removes it, to prove that a build works on this machine.
pub(crate) fn try_out(bin: &Path, folder: &Path) -> Result<(), ClusterError> {
    let result = initdb(bin, &random::hex_256(), &Identity::for_postgres(), folder);
    files::remove_any(folder).map_err(|source| ClusterError::Io { path: folder.to_owned(), source })?;
    result
}

/// Removes staging folders of killed attempts, after killing processes that still work in them.
fn remove_killed_attempts(home: &Home) -> io::Result<()> {
    files::create_private_dir(&home.postgres())?;
    for entry in std::fs::read_dir(home.postgres())?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(STAGING) {
            continue;
        }
        // Repeats because a process may be starting another one.
        for _ in 0..5 {
            let mut remaining = process::working_in(&entry.path());
            if remaining.is_empty() {
                break;
            }
            leftovers::signal_and_wait(&mut remaining, process::Signal::Kill, Duration::from_secs(2));
        }
        files::remove_any(&entry.path())?;
    }
    Ok(())
}

const SIGBUS: i32 = nix::libc::SIGBUS;
/// Explanation of a SIGBUS.
const NO_SHARED_MEMORY: &str = "cannot use shared memory: the usual causes are huge pages that are reserved but not permitted, or a \
    full /dev/shm";
/// Time limit of initdb, which writes 40 MB; the slowest disk needs less.
const INITDB_LIMIT: Duration = Duration::from_secs(300);

/// The value of `dynamic_shared_memory_type`: `posix` keeps the memory in /dev/shm; where that cannot be used, `mmap`
/// keeps it in files of the data directory.
fn shared_memory_type() -> &'static str {
    if disk::has_shared_memory() { "posix" } else { "mmap" }
}

/// initdb starts servers itself, so settings that let our server start on some machines are needed here too.
fn initdb_arguments(staging: &Path, password_file: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--pgdata".into(), staging.into(), "--pwfile".into(), password_file.into()];
    // The caller removes the folder, after the check whether the disk is full.
    let own_options = "--auth scram-sha-256 --no-instructions --no-clean --sync-method";
    arguments.extend(INITDB.split(' ').chain(own_options.split(' ')).map(OsString::from));
    arguments.push(if disk::has_syncfs() { "syncfs".into() } else { "fsync".into() });
    arguments.extend(["--username", SUPERUSER, "-c"].map(OsString::from));
    arguments.push(format!("dynamic_shared_memory_type={}", shared_memory_type()).into());
    arguments
}

/// Runs the initdb in `bin` on the empty folder `staging`.
fn initdb(bin: &Path, password: &str, identity: &Identity, staging: &Path) -> Result<(), ClusterError> {
    // A shell would change the path in double quotes.
    if bin.to_string_lossy().contains(['$', '`']) {
        return Err(ClusterError::ShellPath(bin.to_owned()));
    }
    // The staging folder is initdb's working directory, by which the next attempt finds processes that survived a kill.
    let io = |source| ClusterError::Io { path: staging.to_owned(), source };
    files::create_private_dir(staging).map_err(io)?;
    let password_file = files::temporary_neighbour(staging);
    let password = format!("{password}\n");
    files::write_atomic(&password_file, password.as_bytes(), 0o600).map_err(io)?;
    let mut command = unprivileged_command(&bin.join("initdb"), identity);
    command.current_dir(staging).args(initdb_arguments(staging, &password_file));
    command::dies_with_this_thread(&mut command);
    let output = command::output_within(&mut command, INITDB_LIMIT);
    files::remove_any(&password_file).map_err(io)?;
    let output = output.map_err(|error| match identity.single_user() {
        // Errors of unshare(2) and the uid maps where they are forbidden or exhausted; exec reports none of these.
        Some(_) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TimedOut) => {
            ClusterError::NoUserNamespace(error.to_string())
        }
        _ => ClusterError::Initdb(error.to_string()),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Leaves out the line that the folder is kept (`--no-clean`), because the caller removes it.
    let lines = stderr.trim().lines().filter(|line| !line.contains("not removed at user's request"));
    let message = command::failure(&lines.collect::<Vec<_>>().join("\n"), output.status);
    let message = match output.status.signal() {
        Some(SIGBUS) => format!("{message}\n{NO_SHARED_MEMORY}"),
        _ if message.contains("Bus error") => format!("{message}\n{NO_SHARED_MEMORY}"),
        _ => message,
    };
    let message = match limits::file_size() {
        Some(bytes) => {
            let limit = disk::human_size(bytes);
            format!("{message}\na possible cause is the file size limit of {limit} (`ulimit -f`)")
        }
        None => message,
    };
    match disk::shortage(staging) {
        Ok(shortage @ (Shortage::Bytes | Shortage::Files)) => {
            Err(ClusterError::DiskFull { path: staging.to_owned(), shortage, text: message })
        }
        _ => Err(ClusterError::Initdb(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_new_until_a_database_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        assert!(!is_new(&home), "there is no cluster");
        let add = |name: &str| std::fs::create_dir_all(home.postgres_data().join("base").join(name)).unwrap();
        for name in ["1", "4", "5", "pgsql_tmp"] {
            add(name);
        }
        assert!(is_new(&home));
        add("16385");
        assert!(!is_new(&home));
    }

    #[test]
    fn a_path_that_a_shell_would_expand_is_refused() {
        let staging = tempfile::tempdir().unwrap();
        let refused = initdb(Path::new("/h/$(id)/bin"), "x", &Identity::Own, staging.path());
        assert!(matches!(refused, Err(ClusterError::ShellPath(_))), "{refused:?}");
    }

    #[test]
    fn initdb_uses_no_huge_pages() {
        let arguments = initdb_arguments(Path::new("/d"), Path::new("/p"));
        assert!(arguments.windows(2).any(|pair| pair[0] == "-c" && pair[1] == "huge_pages=off"));
    }

    #[test]
    fn only_a_cluster_of_this_major_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        assert_eq!(state(&home), ClusterState::Absent);
        let data = home.postgres_data();
        std::fs::create_dir_all(data.join("global")).unwrap();
        assert!(matches!(state(&home), ClusterState::NotACluster(_)));
        for (text, expected) in [("", false), ("18", false), ("abc", false), ("\u{fffd}", false)] {
            std::fs::write(data.join("PG_VERSION"), text).unwrap();
            assert_eq!(state(&home) == ClusterState::Ready, expected, "{text:?}");
        }
        std::fs::write(data.join("global/pg_control"), "x").unwrap();
        std::fs::write(data.join("PG_VERSION"), "18\n").unwrap();
        assert_eq!(state(&home), ClusterState::Ready);
        std::fs::write(data.join("PG_VERSION"), "17\n").unwrap();
        assert_eq!(state(&home), ClusterState::OtherMajor("17".into()));
    }
}
