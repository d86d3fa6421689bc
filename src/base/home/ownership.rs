//! Ownership of a home's contents: a folder can be a home only if Leoflow was set up in it, or if it has no entries but
//! those that Leoflow creates. Entries of other programs are foreign.

use super::backup_names::is_archive_name;
use super::{Home, HomeError, LOST_AND_FOUND, config_files};
use crate::sys::fs::files;
use crate::sys::{env_vars, user};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The top-level entries of a home. In folders with common names (`bin`, `logs`, …) only entries with names that
/// Leoflow uses are ours.
const ENTRIES: &[(&str, Inside)] = &[
    ("config.yaml", Inside::All),
    ("setup.json", Inside::All),
    ("datastore.json", Inside::All),
    ("api-tokens.json", Inside::All),
    ("bin", Inside::Only(is_program)),
    ("versions", Inside::Only(is_version)),
    ("managed-postgres", Inside::All),
    ("python", Inside::Only(is_python_entry)),
    ("tools", Inside::Only(|name| name == "uv")),
    ("ui", Inside::Only(is_version)),
    ("venv", Inside::All),
    ("venvs", Inside::Only(is_hash)),
    ("linked", Inside::Only(is_hash)),
    ("brought", Inside::Only(is_record)),
    ("backups", Inside::Only(is_backup)),
    ("task-logs", Inside::All),
    ("logs", Inside::Only(is_log)),
    ("run", Inside::All),
    ("restore", Inside::All),
    ("upgrade", Inside::All),
];

/// Which entries of a top-level folder are ours.
#[derive(Clone, Copy)]
enum Inside {
    All,
    /// Those whose name the function accepts.
    Only(fn(&str) -> bool),
}

fn is_program(name: &str) -> bool {
    ["leoflow", "leoflow-server", "leoflow-agent"].contains(&name)
}

fn is_version(name: &str) -> bool {
    name.split('.').count() >= 3 && name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_python_entry(name: &str) -> bool {
    ["airflow", "compiled", "managed"].contains(&name)
        || name.starts_with("leoflow-")
        || name.starts_with("shim-")
        || name.starts_with("packages-")
        || is_version(name)
}

fn is_hash(name: &str) -> bool {
    name.len() >= 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_record(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(is_hash)
}

fn is_backup(name: &str) -> bool {
    ["verified.json", "upkeep.json", "made.json"].contains(&name)
        || is_archive_name(name) && (name.starts_with("automatic-") || name.starts_with("leoflow-backup-"))
}

fn is_log(name: &str) -> bool {
    let process = name.split('.').next().unwrap_or_default();
    let is_ours =
        ["agent", "keeper", "lite", "migrate", "operation", "postgres", "server", "start", "supervisor", "upgrade"]
            .contains(&process);
    is_ours && name[process.len()..].starts_with(".log")
}

/// True for leftovers of an interrupted install or write: `.install-…`, `.name.tmp-<pid>`.
fn is_leftover(name: &str) -> bool {
    name.starts_with(".install-") || files::is_temporary_neighbour(name)
}

/// The names in a folder; empty for a link, whose target does not belong to the home.
fn entries(folder: &Path) -> Vec<String> {
    if fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_symlink()) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Lists the entries that are not Leoflow's, sorted.
pub fn foreign(home: &Home) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    // The home itself may be a link.
    let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    for name in entries(&root) {
        let path = home.root().join(&name);
        match ENTRIES.iter().find(|(known, _)| *known == name) {
            Some((_, Inside::All)) => {}
            Some((_, Inside::Only(is_ours))) => {
                let is_foreign = |entry: &String| !is_ours(entry) && !is_leftover(entry);
                paths.extend(entries(&path).into_iter().filter(is_foreign).map(|entry| path.join(entry)));
            }
            None if is_leftover(&name) || config_files::is_override_name(&name) => {}
            None => paths.push(path),
        }
    }
    paths.sort();
    paths
}

/// True when the folder has files that show that Leoflow was set up in it, even partially.
fn is_marked(home: &Home) -> bool {
    let receipt = files::read_text(&home.receipt(), 1024 * 1024).ok().flatten();
    let is_cluster = home.postgres_credentials().exists() || home.postgres_data().join("PG_VERSION").exists();
    [home.lock(), home.journal()].iter().any(|path| path.exists())
        || receipt.is_some_and(|text| text.contains("receipt_version"))
        || is_cluster
        || home.postgres_installs().is_dir()
        || entries(&home.versions()).iter().any(|version| home.versions().join(version).join("leoflow").exists())
}

/// Refuses a home of another user, and a folder in use for something else. Read-only.
pub(super) fn check(home: &Home) -> Result<(), HomeError> {
    let own_uid = user::effective_uid();
    let owner_of = |path: &Path| fs::metadata(path).ok().map(|meta| meta.uid());
    let other_owner = match owner_of(home.root()) {
        Some(owner) => Some(owner).filter(|owner| *owner != own_uid),
        // Under `sudo -E`, root would create a new home in another user's home directory.
        None => env_vars::user_home()
            .filter(|folder| home.root().starts_with(folder))
            .and_then(|folder| owner_of(&folder))
            .filter(|owner| *owner != own_uid && own_uid == 0),
    };
    if let Some(owner) = other_owner {
        let name = user::login_name(owner).unwrap_or_else(|| format!("the user with id {owner}"));
        return Err(HomeError::OfAnotherUser { home: home.root().to_owned(), owner: name, uid: owner });
    }
    if is_marked(home) {
        return Ok(());
    }
    match foreign(home).into_iter().find(|path| !path.ends_with(LOST_AND_FOUND)) {
        Some(example) => Err(HomeError::InUse { home: home.root().to_owned(), example }),
        None => Ok(()),
    }
}

/// Refuses a workspace in a system folder such as /proc, and one that contains the home. Read-only.
pub fn check_workspace(home: &Home, workspace: &Path) -> Result<(), HomeError> {
    let refuse = |why: &'static str| Err(HomeError::NoWorkspace { path: workspace.to_owned(), why });
    let canonical = workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned());
    let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    if canonical.parent().is_none() {
        return refuse("the whole file system");
    }
    // Users may keep a workspace below /run or /dev/shm, as below /tmp.
    let is_in_memory = canonical.starts_with("/dev/shm") && canonical != Path::new("/dev/shm");
    if ["/proc", "/sys", "/dev", "/run"].iter().any(|system| canonical == Path::new(system))
        || ["/proc", "/sys", "/dev"].iter().any(|system| canonical.starts_with(system) && !is_in_memory)
    {
        return refuse("a part of the system");
    }
    if canonical == root {
        return refuse("Leoflow's own home");
    }
    if root.starts_with(&canonical) {
        return refuse("a folder that holds Leoflow's home");
    }
    if canonical.exists() && !canonical.is_dir() {
        return refuse("not a folder");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(entries: &[&str]) -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        for entry in entries {
            let path = folder.path().join(entry);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = if *entry == "setup.json" { "{\"receipt_version\": 1}" } else { "" };
            fs::write(path, text).unwrap();
        }
        let home = Home { root: folder.path().to_owned() };
        (folder, home)
    }

    #[test]
    fn refuses_a_folder_in_use_and_accepts_an_existing_home() {
        for (entries, is_home) in [
            (&[][..], true),
            (&["config.yaml", "config-mine.yaml"], true),
            (&["python/packages-1/x", "python/airflow/logs/x", "lost+found/x", ".install-abc/leoflow"], true),
            (&["bin/leoflow", "logs/server.log"], true),
            (&["bin/ls"], false),
            (&["share/man"], false),
            (&["python/site.py"], false),
            (&["config.yaml", "notes.txt"], false),
            (&["setup.json", "notes.txt"], true),
            (&["managed-postgres/x", "notes.txt"], false),
            (&["versions/0.1.0/leoflow", "share/man"], true),
        ] {
            let (_folder, home) = home(entries);
            assert_eq!(check(&home).is_ok(), is_home, "{entries:?}");
        }
    }

    #[test]
    fn lists_foreign_entries() {
        let (_folder, home) =
            home(&["setup.json", "bin/leoflow", "bin/ls", "lost+found/x", "backups/automatic-1.tar.zst", ".x.tmp-12"]);
        assert_eq!(foreign(&home), [home.root().join("bin/ls"), home.root().join("lost+found")]);
        // Links are not followed.
        std::os::unix::fs::symlink(home.root().join("bin"), home.root().join("logs")).unwrap();
        assert_eq!(foreign(&home).len(), 2);
    }

    #[test]
    fn refuses_system_folders_and_parents_of_the_home_as_workspace() {
        let (folder, home) = home(&["setup.json"]);
        for (path, is_allowed) in [
            (Path::new("/"), false),
            (Path::new("/dev/null"), false),
            (Path::new("/proc"), false),
            (Path::new("/dev/shm"), false),
            (Path::new("/dev/shm/dags"), true),
            (home.root(), false),
            (folder.path().parent().unwrap(), false),
            (&folder.path().join("below"), true),
        ] {
            assert_eq!(check_workspace(&home, path).is_ok(), is_allowed, "{}", path.display());
        }
    }
}
