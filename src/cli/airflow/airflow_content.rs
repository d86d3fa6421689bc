//! The content of an Airflow to import, from its home or its API.

use super::data_files::pools;
use leoflow_engine::store::secret::connections::Connection;
use leoflow_engine::store::secret::variables::Variable;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything that can be imported from an Airflow.
#[derive(Default)]
pub struct AirflowContent {
    pub variables: Vec<Variable>,
    pub connections: Vec<Connection>,
    pub pools: Vec<pools::Entry>,
    pub files: DagFiles,
}

#[derive(Default)]
pub enum DagFiles {
    #[default]
    None,
    /// Folders and files of an Airflow home.
    Folders { parts: Vec<Part>, files: Vec<PathBuf> },
    /// A folder that is copied whole, but for the entries that `repository::is_copied` leaves out.
    Repository(PathBuf),
    /// Path in the DAG folder to source text.
    Texts(BTreeMap<PathBuf, String>),
}

/// A folder to copy.
pub struct Part {
    pub from: PathBuf,
    /// The place in the new project; empty for the project's folder itself.
    pub to: PathBuf,
}
