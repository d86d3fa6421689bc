//! What an Airflow has that can be taken from it, wherever it was read.

use crate::commands::data::pools;
use crate::engine::store::connections::Connection;
use crate::engine::store::variables::Variable;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What there is to take.
#[derive(Default)]
pub struct Taken {
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
        /// What stands beside the folder, and is looked for in it here.
        requirements: Option<PathBuf>,
    },
    /// By their paths below the DAG folder.
    Texts(BTreeMap<PathBuf, String>),
}
