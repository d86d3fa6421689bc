//! Creates projects: the first one of a workspace, and those of `leoflow init`. Never changes existing ones.

use leoflow_base::home::{LOST_AND_FOUND, RESTORE_IN_WORKSPACE};
use leoflow_base::sys::fs::{files, folders};
use std::io;
use std::path::{Path, PathBuf};

/// The starter DAG.
const HELLO: &str = include_str!("hello_dag.py");
/// DAG id, and name of its folder in a new workspace.
const NAME: &str = "hello";
/// Size limit of a starter `dag.py`, in bytes; the file is much smaller.
const STARTER_LIMIT: u64 = 64 * 1024;

/// Creates a workspace with the starter project. The workspace must be new or empty.
pub fn make(workspace: &Path) -> io::Result<()> {
    folders::create_all(workspace)?;
    match make_project(&workspace.join(NAME), NAME) {
        // An interrupted setup has already created it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// True when a folder is empty or contains only what `make` writes and the leftovers of a killed restore.
pub fn is_untouched(workspace: &Path) -> bool {
    let names = |folder: &Path| -> Option<Vec<String>> {
        let entries = std::fs::read_dir(folder).ok()?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Some(names.filter(|name| !name.starts_with(RESTORE_IN_WORKSPACE) && name != LOST_AND_FOUND).collect())
    };
    let starter = workspace.join(NAME);
    match names(workspace).as_deref() {
        Some([]) => true,
        Some([name]) if name == NAME => names(&starter).is_some_and(|names_inside| {
            names_inside.iter().all(|name| match name.as_str() {
                "dag.py" => files::read_text(&starter.join(name), STARTER_LIMIT)
                    .is_ok_and(|text| text.as_deref() == Some(HELLO)),
                other => other.starts_with(".dag.py.tmp-"),
            })
        }),
        _ => false,
    }
}

/// Creates a project whose DAG has this id. Fails with `AlreadyExists` if there is a `dag.py`.
pub fn make_project(folder: &Path, dag_id: &str) -> io::Result<PathBuf> {
    let file = folder.join("dag.py");
    if file.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    folders::create_all(folder)?;
    let text = HELLO.replace("dag_id=\"hello\"", &format!("dag_id=\"{dag_id}\""));
    // Written atomically, so that a killed setup leaves it complete or absent.
    files::write_atomic(&file, text.as_bytes(), 0o644)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_leftovers_from_user_files() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("w");
        assert!(!is_untouched(&workspace));
        std::fs::create_dir_all(workspace.join("lost+found")).unwrap();
        assert!(is_untouched(&workspace));
        std::fs::create_dir_all(workspace.join("hello")).unwrap();
        assert!(is_untouched(&workspace));
        std::fs::write(workspace.join("hello/.dag.py.tmp-12"), "half").unwrap();
        assert!(is_untouched(&workspace));
        make(&workspace).unwrap();
        make(&workspace).unwrap();
        assert!(is_untouched(&workspace));
        std::fs::write(workspace.join("hello/dag.py"), "mine").unwrap();
        assert!(!is_untouched(&workspace));
        std::fs::remove_file(workspace.join("hello/dag.py")).unwrap();
        std::fs::write(workspace.join("notes.txt"), "").unwrap();
        assert!(!is_untouched(&workspace));
    }

    #[test]
    fn creates_a_project_once_and_keeps_user_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = make_project(&folder.path().join("p"), "reports").unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("dag_id=\"reports\""));
        std::fs::write(&file, "mine").unwrap();
        let again = make_project(&folder.path().join("p"), "reports").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
