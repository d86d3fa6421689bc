//! Versions of DAGs: each is a DAG as one state of its file has made it.

use super::StoreError;
use crate::postgres::GenericClient;
use serde_json::{Map, Value};
use tokio_postgres::types::Json;

/// The structure and sources of a version, as JSON.
pub struct Version {
    pub structure: crate::engine::dag::Structure,
    pub relative_fileloc: String,
    pub sources: Map<String, Value>,
    /// What its code runs with; `None` for the plain interpreter.
    pub environment: Option<String>,
}

pub async fn version(client: &impl GenericClient, id: i64) -> Result<Version, StoreError> {
    let query = "SELECT structure, relative_fileloc, sources, environment FROM dag_version WHERE id = $1";
    let row = client
        .query_opt(query, &[&id])
        .await?
        .ok_or_else(|| StoreError::NotFound { what: "dag version", id: id.to_string() })?;
    let Json(structure) = row.get("structure");
    let Json(sources) = row.get("sources");
    Ok(Version {
        structure,
        relative_fileloc: row.get("relative_fileloc"),
        sources,
        environment: row.get("environment"),
    })
}
