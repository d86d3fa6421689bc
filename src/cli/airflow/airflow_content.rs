//! The content of an Airflow to import, from its home or its API.

use super::data_files::pools;
use leoflow_engine::store::secret::connections::Connection;
use leoflow_engine::store::secret::variables::Variable;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything that can be imported from an Airflow.
#[derive(Clone, Default)]
pub struct AirflowContent {
    pub variables: Vec<Variable>,
    pub connections: Vec<Connection>,
    pub pools: Vec<pools::Entry>,
    pub files: DagFiles,
}

impl AirflowContent {
    /// True if there are no variables, connections and pools.
    pub fn has_no_entries(&self) -> bool {
        self.variables.is_empty() && self.connections.is_empty() && self.pools.is_empty()
    }
}

/// The DAG files to import, and where to read them.
#[derive(Clone, Default)]
pub enum DagFiles {
    #[default]
    None,
    /// Some folders of an Airflow home, and single files beside them.
    Folders { folders: Vec<FolderCopy>, files: Vec<PathBuf> },
    /// The source of each DAG file, by its path in the DAG folder.
    Texts(BTreeMap<PathBuf, String>),
}

/// A folder to copy.
#[derive(Clone)]
pub struct FolderCopy {
    pub from: PathBuf,
    /// Path in the new project; empty for the project folder itself.
    pub to: PathBuf,
}
