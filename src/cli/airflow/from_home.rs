//! Reads the home of an Airflow: its DAG folder and the files of `airflow variables|connections|pools export`.

use super::airflow_content::AirflowContent;
use super::data_files::{connections, pools, transfer_file, variables};
use super::findings::Findings;
use super::{astro_settings, repository};
use crate::error::Error;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::path::{Path, PathBuf};

/// Size limit of `airflow.cfg`, in bytes.
const CONFIG_LIMIT: u64 = 4 * 1024 * 1024;
/// Kind, file name, and the command that writes the file from Airflow's database.
const EXPORTS: [(&str, &str, &str); 3] = [
    ("variables", "variables.json", "airflow variables export variables.json"),
    ("connections", "connections.json", "airflow connections export connections.json --file-format json"),
    ("pools", "pools.json", "airflow pools export pools.json"),
];

/// Reads the content of the home. Adds a finding for each missing file, unless `airflow_settings.yaml` has its entries.
pub fn read(home: &Path, findings: &mut Findings) -> Result<AirflowContent, Error> {
    if !home.is_dir() {
        return Err(Error::usage(format!("the folder {} does not exist", home.display()))
            .hint("name an Airflow home folder, or the URL of a server such as http://localhost:8080"));
    }
    let mut content = AirflowContent::default();
    add_data_files(home, &mut content)?;
    for (kind, name, command) in EXPORTS {
        let file = home.join(name);
        if !file.exists() {
            let has_astro_entries = match kind {
                "variables" => !content.variables.is_empty(),
                "connections" => !content.connections.is_empty(),
                _ => !content.pools.is_empty(),
            };
            if has_astro_entries {
                continue;
            }
            findings.add(
                kind,
                format!("{name} does not exist in {}; Airflow stores {kind} in its database", home.display()),
                format!("run in that folder: {command}"),
            );
        }
    }
    match dag_folder(home, findings) {
        Some(folder) => content.files = repository::files(home, &folder, findings),
        None => findings.add(
            "DAG files",
            format!("{} has no DAG folder", home.display()),
            "copy them into the workspace by hand",
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
    use super::super::airflow_content::DagFiles;
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
}
