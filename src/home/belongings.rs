//! Whose a folder is: only one that is absent, empty or marked as ours becomes or stays a home, and of what is in
//! a home only what Leoflow has made is Leoflow's.

use super::{Home, HomeError, config_files};
use crate::sys::{env_vars, files, user};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is directly in a home, with who else might have something in it: of folders whose names everybody uses
/// (`bin`, `logs`, …) only the entries that are made here are ours.
const ENTRIES: &[(&str, Inside)] = &[
    ("config.yaml", Inside::All),
    ("setup.json", Inside::All),
    ("datastore.json", Inside::All),
    ("bin", Inside::Only(is_program)),
    ("versions", Inside::Only(is_version)),
    ("managed-postgres", Inside::All),
    ("python", Inside::Only(is_of_python)),
    ("tools", Inside::Only(is_tool)),
    ("ui", Inside::Only(is_version)),
    ("venv", Inside::All),
    ("venvs", Inside::Only(is_hash)),
    ("backups", Inside::Only(is_backup)),
    ("task-logs", Inside::All),
    ("logs", Inside::Only(is_log)),
    ("run", Inside::All),
    ("restore", Inside::All),
    ("upgrade", Inside::All),
];

#[derive(Clone, Copy)]
enum Inside {
    All,
    Only(fn(&str) -> bool),
}

fn is_program(name: &str) -> bool {
    ["leoflow", "leoflow-server", "leoflow-agent"].contains(&name)
}

fn is_version(name: &str) -> bool {
    name.split('.').count() >= 3 && name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_of_python(name: &str) -> bool {
    ["airflow", "compiled", "managed"].contains(&name)
        || name.starts_with("leoflow-")
        || name.starts_with("shim-")
        || name.starts_with("packages-")
        || is_version(name)
}

fn is_tool(name: &str) -> bool {
    name == "uv"
}

fn is_hash(name: &str) -> bool {
    name.len() >= 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_backup(name: &str) -> bool {
    let archive = name.strip_suffix(".age").unwrap_or(name);
    let is_archive = archive.ends_with(".tar.zst") || archive.ends_with(".tar.gz");
    ["verified.json", "upkeep.json", "made.json"].contains(&name)
        || is_archive && (name.starts_with("automatic-") || name.starts_with("leoflow-backup-"))
}

fn is_log(name: &str) -> bool {
    let process = name.split('.').next().unwrap_or_default();
    let is_ours = ["agent", "lite", "migrate", "operation", "postgres", "server", "start", "supervisor", "upgrade"]
        .contains(&process);
    is_ours && name[process.len()..].starts_with(".log")
}

/// What an install or a write that was cut off has left: `.install-…`, `.name.tmp-<pid>`.
fn is_left_over(name: &str) -> bool {
    name.starts_with(".install-") || files::is_temporary_neighbour(name)
}

/// None in a link: what that leads to is elsewhere, and not the home's.
fn entries(folder: &Path) -> Vec<String> {
    if fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_symlink()) {
        return Vec::new();
    }
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What in the folder is somebody else's, in order.
pub fn foreign(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // The home itself may be behind a link.
    let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    for name in entries(&root) {
        let path = home.root().join(&name);
        match ENTRIES.iter().find(|(known, _)| *known == name) {
            Some((_, Inside::All)) => {}
            Some((_, Inside::Only(is_ours))) => {
                let theirs = |inner: &String| !is_ours(inner) && !is_left_over(inner);
                found.extend(entries(&path).into_iter().filter(theirs).map(|inner| path.join(inner)));
            }
            // A file system of its own has this one.
            None if name == "lost+found" || is_left_over(&name) || config_files::goes_over(&name) => {}
            None => found.push(path),
        }
    }
    found.sort();
    found
}

/// Whether Leoflow was set up there, or began to be.
fn is_marked(home: &Home) -> bool {
    let receipt = files::read_text(&home.receipt(), 1024 * 1024).ok().flatten();
    let is_cluster = home.postgres_credentials().exists() || home.postgres_data().join("PG_VERSION").exists();
    [home.lock(), home.journal()].iter().any(|path| path.exists())
        || receipt.is_some_and(|text| text.contains("receipt_version"))
        || is_cluster
        || home.postgres_installs().is_dir()
        || entries(&home.versions()).iter().any(|version| home.versions().join(version).join("leoflow").exists())
}

/// Refuses a home that is another user's, and a folder that is in use for something else. Writes nothing.
pub(super) fn check(home: &Home) -> Result<(), HomeError> {
    let own = user::effective_uid();
    let owner_of = |path: &Path| fs::metadata(path).ok().map(|meta| meta.uid());
    let other = match owner_of(home.root()) {
        Some(owner) => Some(owner).filter(|owner| *owner != own),
        // One that is to be made in somebody's own folder, as by `sudo -E`.
        None => env_vars::user_home()
            .filter(|folder| home.root().starts_with(folder))
            .and_then(|folder| owner_of(&folder))
            .filter(|owner| *owner != own && own == 0),
    };
    if let Some(owner) = other {
        let name = user::login_name(owner).unwrap_or_else(|| format!("the user with id {owner}"));
        return Err(HomeError::OfAnotherUser { home: home.root().to_owned(), owner: name, uid: owner });
    }
    if is_marked(home) {
        return Ok(());
    }
    match foreign(home).into_iter().next() {
        Some(example) => Err(HomeError::InUse { home: home.root().to_owned(), example }),
        None => Ok(()),
    }
}

/// What cannot be a workspace: the parts of the system that are no folders of files, and what holds the home.
pub fn check_workspace(home: &Home, workspace: &Path) -> Result<(), HomeError> {
    let refuse = |why: &'static str| Err(HomeError::NoWorkspace { path: workspace.to_owned(), why });
    let real = workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned());
    let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    if real.parent().is_none() {
        return refuse("the whole file system");
    }
    if ["/proc", "/sys", "/dev", "/run"].iter().any(|system| real == Path::new(system))
        || ["/proc", "/sys", "/dev"].iter().any(|system| real.starts_with(system))
    {
        return refuse("a part of the system");
    }
    if real == root {
        return refuse("Leoflow's own home");
    }
    if root.starts_with(&real) {
        return refuse("a folder that holds Leoflow's home");
    }
    if real.exists() && !real.is_dir() {
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
    fn a_folder_in_use_is_no_home_and_one_of_ours_stays_one() {
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
    fn what_is_somebody_elses_is_named() {
        let (_folder, home) =
            home(&["setup.json", "bin/leoflow", "bin/ls", "data/x", "backups/automatic-1.tar.zst", ".x.tmp-12"]);
        assert_eq!(foreign(&home), [home.root().join("bin/ls"), home.root().join("data")]);
        // What a link leads to is not looked at.
        std::os::unix::fs::symlink(home.root().join("data"), home.root().join("logs")).unwrap();
        assert_eq!(foreign(&home).len(), 2);
    }

    #[test]
    fn neither_the_system_nor_what_holds_the_home_is_a_workspace() {
        let (folder, home) = home(&["setup.json"]);
        for (path, may) in [
            (Path::new("/"), false),
            (Path::new("/dev/null"), false),
            (Path::new("/proc"), false),
            (home.root(), false),
            (folder.path().parent().unwrap(), false),
            (&folder.path().join("below"), true),
        ] {
            assert_eq!(check_workspace(&home, path).is_ok(), may, "{}", path.display());
        }
    }
}
