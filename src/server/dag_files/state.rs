//! What the handlers and the loop that parses DAG files share.

use super::file_index::ImportProgress;
use super::parse_requests::ParseRequests;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use leoflow_engine::store::dag::structures::Structures;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

#[derive(Default)]
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
    /// How far the imports are, at any time.
    pub progress: watch::Sender<ImportProgress>,
    /// Caches the structures of DAGs, for lists.
    pub structures: Structures,
}

impl DagFiles {
    /// Records that nothing parses DAG files, since there is no workspace.
    pub fn close(&self) {
        self.initial_parse.send_replace(true);
        self.initial_files.send_replace(Some(0));
        self.parse_requests.close();
    }
}

/// Waits, for a limited time, until the DAG files found at the start are parsed, since the response should include
/// them.
pub async fn after_initial_parse(State(dag_files): State<Arc<DagFiles>>, request: Request, next: Next) -> Response {
    // Cannot fail: the state holds the sender.
    let _ = dag_files.initial_parse.subscribe().wait_for(|done| *done).await;
    next.run(request).await
}

/// After a successful request that is no read, has the DAG files that use Variables or Connections parsed again.
pub async fn notify_store_changed(State(dag_files): State<Arc<DagFiles>>, request: Request, next: Next) -> Response {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let response = next.run(request).await;
    if !is_read && response.status().is_success() {
        dag_files.store_changed.notify_one();
    }
    response
}
