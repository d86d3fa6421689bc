//! Reads what the DAG files of projects need from their sources, without running them; see `leoflow/survey/`.

use super::repository::{Project, Repository};
use crate::error::Error;
use leoflow_base::sys::blocking;
use leoflow_python::{Interpreter, Job, is_python};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Airflow's folder in the images of Apache Airflow and of Astronomer, on MWAA and on Cloud Composer.
pub const IMAGE_FOLDERS: [&str; 3] = ["/opt/airflow", "/usr/local/airflow", "/home/airflow/gcs"];

/// Something that was found, and where: paths relative to the folder that is brought, with lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub what: String,
    /// The first places.
    pub places: Vec<String>,
    pub count: usize,
    /// Of a module: the package that provides it, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

impl Fact {
    pub fn at(what: impl Into<String>, place: impl Into<String>) -> Self {
        Self { what: what.into(), places: vec![place.into()], count: 1, package: None }
    }

    /// Adds the places of another fact.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.places.extend(other.places.iter().cloned());
    }

    /// One fact for several, named after them and placed where each is found first.
    pub fn joined(facts: &[&Self], heading: &str) -> Self {
        let names: Vec<&str> = facts.iter().map(|fact| fact.what.as_str()).collect();
        let mut places: Vec<String> = facts.iter().map(|fact| fact.places[0].clone()).collect();
        // Often one line has several.
        places.dedup();
        Self { what: format!("{heading}: {}", names.join(", ")), places, count: facts.len(), package: None }
    }
}

/// A folder of a container image that the project's folder stands for.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct ImageFolder {
    pub path: String,
    /// Why processes of this machine cannot see the project's folder there; `None` if they can.
    pub obstacle: Option<String>,
}

/// What the files of one project need.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Survey {
    /// Modules that are neither Python's nor the project's own.
    pub modules: Vec<Fact>,
    /// Names that Airflow 3 lacks, as sentences.
    pub removed: Vec<Fact>,
    /// The same, of names that `airflow_2` in leoflow.yaml translates.
    pub translated: Vec<Fact>,
    /// Airflow's modules that the small package lacks.
    pub only_sdk: Vec<Fact>,
    pub unreadable: Vec<Fact>,
    /// Texts with paths of container images.
    pub image_paths: Vec<Fact>,
    /// The folder of an image that most of them name.
    pub image_folder: Option<ImageFolder>,
    /// Variables, connections and environment variables that are read without a default.
    pub variables: Vec<Fact>,
    pub connections: Vec<Fact>,
    pub environment: Vec<Fact>,
}

impl Survey {
    /// The value of `image_folder` in the project's settings, with the places that name it.
    pub fn shown_image_folder(&self) -> Option<Fact> {
        let folder = self.image_folder.as_ref().filter(|folder| folder.obstacle.is_none())?;
        let below: Vec<&Fact> = self.image_paths.iter().filter(|fact| fact.what.contains(&folder.path)).collect();
        Some(Fact { what: folder.path.clone(), ..Fact::joined(&below, "") })
    }

    /// The texts with paths of images that are not all below that folder.
    pub fn missing_image_paths(&self) -> Vec<&Fact> {
        let shown = self.shown_image_folder().map(|folder| folder.what);
        let is_missing = |fact: &&Fact| {
            let mut folders = IMAGE_FOLDERS.into_iter().filter(|folder| fact.what.contains(folder));
            folders.any(|folder| shown.as_deref() != Some(folder))
        };
        self.image_paths.iter().filter(is_missing).collect()
    }
}

/// Reads the projects' files. `extra_roots` are import folders in addition to the usual ones.
pub async fn read(
    interpreter: &Interpreter,
    repository: &Repository,
    projects: &[(&Project, Vec<PathBuf>)],
) -> Result<Vec<Survey>, Error> {
    let failed = |reason: &dyn std::fmt::Display| Error::failed(format!("the sources cannot be read: {reason}"));
    let arguments = interpreter.arguments(Job::Survey, &json!({}));
    let mut child = Command::new(&interpreter.program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let lines: String = projects
        .iter()
        .map(|(project, extra_roots)| {
            let folder = &project.folder;
            let roots = [project.dags(), folder.clone(), folder.join("plugins"), repository.top.clone()];
            let parent = folder.parent().filter(|_| *folder != repository.top).map(PathBuf::from);
            let roots: Vec<PathBuf> = extra_roots.iter().cloned().chain(roots).chain(parent).collect();
            let files: Vec<&PathBuf> = project.dag_files.iter().filter(|file| is_python(file)).collect();
            format!("{}\n", json!({"top": repository.folder, "project": folder, "roots": roots, "files": files}))
        })
        .collect();
    let stdin = child.stdin.take();
    // The child answers while it reads. If it ends early, its output says why.
    let (_, output) = tokio::join!(
        blocking::run(move || stdin.map(|mut stdin| stdin.write_all(lines.as_bytes()))),
        blocking::run(move || child.wait_with_output()),
    );
    let output = output.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let surveys: Result<Vec<Survey>, _> = text.lines().map(serde_json::from_str).collect();
    match surveys {
        Ok(surveys) if surveys.len() == projects.len() => Ok(surveys),
        _ => Err(failed(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::IMAGE_FOLDERS;

    #[test]
    fn folders_of_images_are_those_of_the_hints() {
        let hints = include_str!("../../../python/package/leoflow/common/hints/image_paths.py");
        let folders = IMAGE_FOLDERS.map(|folder| format!("\"{folder}/\"")).join(", ");
        assert!(hints.contains(&format!("FOLDERS = ({folders})\n")), "{folders}");
    }
}
