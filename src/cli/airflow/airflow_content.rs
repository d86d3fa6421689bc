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
    Folder {
        folder: PathBuf,
        /// A requirements.txt beside the folder; Leoflow expects it inside.
        requirements: Option<PathBuf>,
    },
    /// Path in the DAG folder to source text.
    Texts(BTreeMap<PathBuf, String>),
}
