//! State for parsing DAG files and for running their code.

use crate::dag_code::questions::Questions;
use crate::dag_files::parse_requests::ParseRequests;
use crate::environments::Environments;
use crate::environments::provider_cache::ProviderCache;
use leoflow_engine::store::dag::structures::Structures;
use leoflow_python::SharedInterpreter;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, watch};

pub struct DagFiles {
    /// Notified when a DAG is deleted whose file may still exist.
    pub dag_deleted: Notify,
    /// Files to parse again on request.
    pub parse_requests: ParseRequests,
    /// Notified when a Variable or Connection changes, because DAG files may use it.
    pub store_changed: Notify,
    /// True once the DAG files found at the start are parsed, after a timeout, or without a workspace.
    pub initial_parse: watch::Sender<bool>,
    /// Number of the DAG files found at the start that are not imported yet; `None` until the first scan.
    pub initial_files: watch::Sender<Option<usize>>,
    /// Runs code of DAG files; set when the scheduler starts, if there is a workspace.
    pub questions: OnceLock<Questions>,
    pub interpreter: Arc<SharedInterpreter>,
    pub environments: Arc<Environments>,
    pub providers: ProviderCache,
    /// Caches the structures of DAGs, for lists.
    pub structures: Structures,
}

impl DagFiles {
    pub fn new(interpreter: Arc<SharedInterpreter>, environments: Environments) -> Self {
        Self {
            dag_deleted: Notify::new(),
            parse_requests: ParseRequests::default(),
            store_changed: Notify::new(),
            initial_parse: watch::Sender::new(false),
            initial_files: watch::Sender::new(None),
            questions: OnceLock::new(),
            interpreter,
            environments: Arc::new(environments),
            providers: ProviderCache::default(),
            structures: Structures::default(),
        }
    }
}
