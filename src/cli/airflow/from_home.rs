//! Reads the home of an Airflow: its DAG folder and the files of `airflow variables|connections|pools export`.

use super::airflow_content::{AirflowContent, DagFiles, FolderCopy};
use super::astro_settings;
use super::data_files::{connections, pools, transfer_file, variables};
use super::findings::Findings;
use crate::error::Error;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::shell;
use leoflow_python::{FileContext, Request, file_context};
use std::path::{Path, PathBuf};

/// Size limit of `airflow.cfg`, in bytes.
const CONFIG_LIMIT: u64 = 4 * 1024 * 1024;
/// Kind, file name, and the command that writes the file from Airflow's database.
const EXPORTS: [(&str, &str, &str); 3] = [
    ("variables", "variables.json", "airflow variables export variables.json"),
    ("connections", "connections.json", "airflow connections export connections.json --file-format json"),
    ("pools", "pools.json", "airflow pools export pools.json"),
];
/// Folders beside the DAG folder that DAGs import modules from or read, or that list their requirements.
const SIBLING_FOLDERS: [&str; 3] = ["include", "plugins", "requirements"];

/// Reads the content of the home. Adds a finding for each missing file. Refuses a repository.
pub fn read(home: &Path, findings: &mut Findings) -> Result<AirflowContent, Error> {
    if !home.is_dir() {
        let message = match home.exists() {
            true => format!("{} is not a folder", home.display()),
            false => format!("the folder {} does not exist", home.display()),
        };
        return Err(Error::usage(message)
            .hint("name an Airflow home folder, or the URL of a server such as http://localhost:8080"));
    }
    if is_repository(home) {
        return Err(Error::usage(format!("{} is a repository, not an Airflow home", home.display()))
            .hint(format!("leoflow bring {}", shell::word(&home.to_string_lossy()))));
    }
    let mut content = AirflowContent::default();
    add_data_files(home, &mut content)?;
    for (kind, name, command) in EXPORTS {
        let file = home.join(name);
        if !file.exists() {
            findings.add(
                kind,
                format!("{name} does not exist in {}; Airflow stores {kind} in its database", home.display()),
                format!("run in that folder: {command}"),
            );
        }
    }
    match dag_folder(home, findings) {
        Some(folder) => content.files = dag_files(home, &folder),
        None => findings.add(
            "DAG files",
            format!("{} has no DAG folder", home.display()),
            "run it on their folder: leoflow bring PATH",
        ),
    }
    Ok(content)
}

/// Adds the variables, connections and pools of the files in a folder.
pub fn add_data_files(folder: &Path, content: &mut AirflowContent) -> Result<(), Error> {
    astro_settings::add(folder, content)?;
    for (kind, name, _) in EXPORTS {
        let file = folder.join(name);
        if !file.exists() {
            continue;
        }
        let json = transfer_file::read_json(&file)?;
        match kind {
            "variables" => content.variables.extend(variables::from_airflow(json)?),
            "connections" => content.connections.extend(connections::from_airflow(json)?),
            _ => content.pools.extend(pools::from_airflow(json)?),
        }
    }
    Ok(())
}

/// True for a folder with DAG files that neither Airflow nor `leoflow export airflow` made.
fn is_repository(home: &Path) -> bool {
    let has = |name: &str| home.join(name).exists();
    has("dags") && !has("export.json") && !has("airflow.cfg")
}

/// The DAG folder `dags`, and of the rest of the home, which also has logs, databases and settings, only the
/// `SIBLING_FOLDERS` and the files that decide about the environment of the DAGs.
fn dag_files(home: &Path, dags: &Path) -> DagFiles {
    let is_export = home.join("export.json").exists();
    let siblings: Vec<FolderCopy> = SIBLING_FOLDERS
        .iter()
        .map(|name| FolderCopy { from: home.join(name), to: PathBuf::from(name) })
        .filter(|folder| folder.from.is_dir() && folder.from != dags && !is_export)
        .collect();
    let mut files = environment_files(home, dags);
    files.retain(|file| !is_export || !file.ends_with(".env"));
    // Without sibling folders, the DAG folder itself becomes the project folder.
    let to = PathBuf::from(if siblings.is_empty() { "" } else { "dags" });
    if to.as_os_str().is_empty() {
        files.retain(|file| !dags.join(file.file_name().unwrap_or_default()).exists());
    }
    let folders = [FolderCopy { from: dags.to_owned(), to }].into_iter().chain(siblings).collect();
    DagFiles::Folders { folders, files }
}

/// The files directly in `home` that decide about the environment of its DAGs.
fn environment_files(home: &Path, dags: &Path) -> Vec<PathBuf> {
    let folder = if dags.starts_with(home) { dags } else { home };
    let any_file = Request::new(folder.join("_.py"), None, PathBuf::new());
    let request = Request { folders: vec![home.to_owned()], project: Some(home.to_owned()), ..any_file };
    let FileContext { read: mut files, .. } = file_context(&request);
    // An invalid `pyproject.toml` is an error before this file is read.
    files.push(home.join("requirements.txt"));
    files.retain(|file| file.parent() == Some(home) && file.is_file());
    files.sort();
    files.dedup();
    files
}

/// Returns the DAG folder that `airflow.cfg` names, else `dags` in the home; `None` if neither exists.
fn dag_folder(home: &Path, findings: &mut Findings) -> Option<PathBuf> {
    let text = files::read_text(&home.join("airflow.cfg"), CONFIG_LIMIT).ok().flatten().unwrap_or_default();
    let configured =
        text.lines().find_map(|line| Some(line.strip_prefix("dags_folder")?.trim_start().strip_prefix('=')?.trim()));
    let default_folder = Some(home.join("dags")).filter(|path| path.is_dir());
    let Some(configured) = configured else { return default_folder };
    let path = match configured.strip_prefix("~/") {
        Some(relative) => env_vars::path("HOME").unwrap_or_default().join(relative),
        None => home.join(configured),
    };
    if path.is_dir() {
        return Some(path);
    }
    let instead = default_folder
        .as_ref()
        .map_or("none was used".to_owned(), |default_folder| format!("{} was used instead", default_folder.display()));
    findings.add(
        "DAG files",
        format!("the folder in airflow.cfg, {configured}, does not exist; {instead}"),
        "copy missing DAG files into the workspace by hand",
    );
    default_folder
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn reports_missing_exports_with_the_command_to_run() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("flows")).unwrap();
        fs::write(home.path().join("airflow.cfg"), "[core]\n# dags_folder = /x\ndags_folder = flows\n").unwrap();
        fs::write(home.path().join("variables.json"), r#"{"a": {"value": 1, "description": "d"}}"#).unwrap();
        fs::write(home.path().join("connections.json"), r#"{"c": "http://h"}"#).unwrap();
        let mut findings = Findings::default();
        let content = read(home.path(), &mut findings).unwrap();
        assert_eq!((content.variables.len(), content.connections.len(), content.pools.len()), (1, 1, 0));
        assert!(matches!(content.files, DagFiles::Folders { folders, .. } if folders[0].from.ends_with("flows")));
        assert_eq!(findings.all().len(), 1);
        assert!(findings.all()[0].remedy.contains("airflow pools export"));
        fs::write(home.path().join("pools.json"), "[]").unwrap();
        assert!(read(home.path(), &mut findings).is_err());
        assert!(read(&home.path().join("missing"), &mut findings).is_err());
    }

    #[test]
    fn refuses_a_repository_and_reads_parts_of_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        for name in ["dags", "include", "plugins", "logs"] {
            fs::create_dir(home.join(name)).unwrap();
        }
        for (name, text) in [(".env", "A=1\n"), ("requirements.txt", "-c limits.txt\n"), ("limits.txt", "six<2\n")] {
            fs::write(home.join(name), text).unwrap();
        }
        let mut findings = Findings::default();
        assert!(read(home, &mut findings).is_err());
        fs::write(home.join("airflow.cfg"), "").unwrap();
        let DagFiles::Folders { folders, files } = read(home, &mut findings).unwrap().files else { panic!() };
        let to: Vec<_> = folders.iter().map(|folder| folder.to.to_str().unwrap()).collect();
        assert_eq!(to, ["dags", "include", "plugins"]);
        assert_eq!(files, [".env", "limits.txt", "requirements.txt"].map(|name| home.join(name)));
        // A home that its user keeps in git.
        fs::create_dir(home.join(".git")).unwrap();
        assert!(read(home, &mut findings).is_ok());
    }
}
