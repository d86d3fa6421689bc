//! What an Airflow's home has: its DAG folder, and what `airflow variables|connections|pools export` wrote beside it.

use super::findings::Findings;
use super::taken::{DagFiles, Taken};
use crate::commands::data::{connections_format, pools, transfer_file, variables};
use crate::error::Error;
use crate::sys::{env_vars, files};
use std::path::{Path, PathBuf};

const CONFIG_LIMIT: u64 = 4 * 1024 * 1024;
/// Of each: what there is when the file is missing is only in Airflow's database.
const EXPORTS: [(&str, &str, &str); 3] = [
    ("variables", "variables.json", "airflow variables export variables.json"),
    ("connections", "connections.json", "airflow connections export connections.json --file-format json"),
    ("pools", "pools.json", "airflow pools export pools.json"),
];

pub fn read(home: &Path, findings: &mut Findings) -> Result<Taken, Error> {
    if !home.is_dir() {
        return Err(Error::usage(format!("there is no folder {}", home.display()))
            .hint("--from is an Airflow's home, or its URL: http://localhost:8080"));
    }
    let mut taken = Taken::default();
    for (what, name, command) in EXPORTS {
        let file = home.join(name);
        if !file.exists() {
            findings.add(
                what,
                format!("there is no {name} in {}; Airflow keeps them in its database", home.display()),
                format!("in that folder: {command}"),
            );
            continue;
        }
        let json = transfer_file::read_json(&file)?;
        match what {
            "variables" => taken.variables = variables::from_airflow(json)?,
            "connections" => {
                let read = connections_format::from_airflow(json);
                taken.connections = read.map_err(|text| Error::failed(text).hint("nothing was imported"))?;
            }
            _ => taken.pools = pools::from_airflow(json)?,
        }
    }
    match dag_folder(home, findings) {
        Some(folder) => {
            let requirements = Some(home.join("requirements.txt"))
                .filter(|file| file.is_file() && !folder.join("requirements.txt").exists());
            taken.files = DagFiles::Folder { folder, requirements };
        }
        None => findings.add(
            "DAG files",
            format!("{} has no DAG folder", home.display()),
            "copy them into the workspace by hand",
        ),
    }
    Ok(taken)
}

/// What its `airflow.cfg` says, or `dags`.
fn dag_folder(home: &Path, findings: &mut Findings) -> Option<PathBuf> {
    let text = files::read_text(&home.join("airflow.cfg"), CONFIG_LIMIT).ok().flatten().unwrap_or_default();
    let said =
        text.lines().find_map(|line| Some(line.strip_prefix("dags_folder")?.trim_start().strip_prefix('=')?.trim()));
    let usual = Some(home.join("dags")).filter(|path| path.is_dir());
    let Some(said) = said else { return usual };
    let path = match said.strip_prefix("~/") {
        Some(below) => env_vars::path("HOME").unwrap_or_default().join(below),
        None => home.join(said),
    };
    if path.is_dir() {
        return Some(path);
    }
    let instead =
        usual.as_ref().map_or("nothing was taken".to_owned(), |usual| format!("{} was taken", usual.display()));
    findings.add(
        "DAG files",
        format!("airflow.cfg says {said}, where there is no folder; {instead}"),
        "copy others into the workspace by hand",
    );
    usual
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_not_exported_is_said_with_the_command_for_it() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("flows")).unwrap();
        fs::write(home.path().join("airflow.cfg"), "[core]\n# dags_folder = /x\ndags_folder = flows\n").unwrap();
        fs::write(home.path().join("variables.json"), r#"{"a": {"value": 1, "description": "d"}}"#).unwrap();
        fs::write(home.path().join("connections.json"), r#"{"c": "http://h"}"#).unwrap();
        let mut findings = Findings::default();
        let taken = read(home.path(), &mut findings).unwrap();
        assert_eq!((taken.variables.len(), taken.connections.len(), taken.pools.len()), (1, 1, 0));
        assert!(matches!(taken.files, DagFiles::Folder { folder, .. } if folder.ends_with("flows")));
        assert_eq!(findings.all().len(), 1);
        assert!(findings.all()[0].remedy.contains("airflow pools export"));
        fs::write(home.path().join("pools.json"), "[]").unwrap();
        assert!(read(home.path(), &mut findings).is_err());
        assert!(read(&home.path().join("missing"), &mut findings).is_err());
    }
}
