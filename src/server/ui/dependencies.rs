//! `/ui/dependencies`: how DAGs, assets and tasks hang together.

use super::asset_nodes::AssetNodes;
use crate::engine::dag::{External, Structure, Until};
use crate::engine::schedule::asset_condition;
use crate::engine::store::dags;
use crate::engine::store::listing::Listing;
use crate::server::api_error::ApiError;
use crate::server::request::Params;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
struct Dependencies {
    /// By id: label and type.
    nodes: BTreeMap<String, (String, &'static str)>,
    edges: BTreeSet<(String, String)>,
}

impl Dependencies {
    fn node(&mut self, id: &str, label: &str, kind: &'static str) {
        self.nodes.entry(id.to_owned()).or_insert_with(|| (label.to_owned(), kind));
    }

    fn edge(&mut self, source: &str, target: &str) {
        self.edges.insert((source.to_owned(), target.to_owned()));
    }

    fn shown(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|(id, (label, kind))| json!({"id": id, "label": label, "type": kind, "team": null}))
            .collect();
        let edges: Vec<Value> =
            self.edges.iter().map(|(source, target)| json!({"source_id": source, "target_id": target})).collect();
        json!({"nodes": nodes, "edges": edges})
    }

    /// What hangs together with a node, in whatever direction.
    fn around(&mut self, id: &str) {
        let (mut kept, mut waiting) = (BTreeSet::from([id.to_owned()]), vec![id.to_owned()]);
        while let Some(at) = waiting.pop() {
            for (source, target) in &self.edges {
                let other = if *source == at { target } else { source };
                if (*source == at || *target == at) && kept.insert(other.clone()) {
                    waiting.push(other.clone());
                }
            }
        }
        self.nodes.retain(|id, _| kept.contains(id));
        self.edges.retain(|(source, _)| kept.contains(source));
    }
}

pub async fn get(State(state): State<Arc<AppState>>, params: Params) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let mut all = Listing::default();
    all.conditions.add("d.is_active", Vec::new());
    let structures: Vec<Arc<Structure>> =
        dags::list(&*client, &state.structures, all).await?.rows.into_iter().map(|dag| dag.structure).collect();
    let assets = AssetNodes::load(&*client).await?;
    let refuse = |status, detail: String| Err(ApiError::new(status, detail));
    let node_id = params.text("node_id");
    match params.text("dependency_type") {
        None | Some("scheduling") => {}
        Some("data") => {
            let Some(asset) = node_id.and_then(|id| id.strip_prefix("asset:")).and_then(|id| id.parse::<i64>().ok())
            else {
                let detail = "Data dependencies require an asset node_id (e.g., 'asset:123')";
                return refuse(StatusCode::BAD_REQUEST, detail.to_owned());
            };
            let mut found = data(&assets, &structures);
            if !found.nodes.contains_key(&format!("asset:{asset}")) {
                return refuse(StatusCode::NOT_FOUND, format!("Asset with id {asset} was not found"));
            }
            found.around(&format!("asset:{asset}"));
            return Ok(Json(found.shown()));
        }
        Some(_) => {
            let message = "Input should be 'scheduling' or 'data'";
            return Err(ApiError::unprocessable(&["query", "dependency_type"], "literal_error", message));
        }
    }
    let mut found = scheduling(&assets, &structures);
    if let Some(id) = node_id {
        if !found.nodes.contains_key(id) {
            return refuse(StatusCode::NOT_FOUND, format!("Unique connected component not found for node {id}"));
        }
        found.around(id);
    }
    Ok(Json(found.shown()))
}

/// What a DAG waits for.
fn awaited(structure: &Structure) -> Vec<&Value> {
    let mut found = Vec::new();
    if let Some(condition) = &structure.asset_condition {
        asset_condition::references(condition, &mut found);
    }
    found
}

/// What makes one DAG begin after another: assets, sensors that wait for it, operators that start it.
fn scheduling(assets: &AssetNodes, structures: &[Arc<Structure>]) -> Dependencies {
    let mut found = Dependencies::default();
    for structure in structures {
        let dag = format!("dag:{}", structure.dag_id);
        let outlets = structure.tasks.iter().flat_map(|task| &task.outlets);
        let linked = awaited(structure).into_iter().map(|one| (one, true)).chain(outlets.map(|one| (one, false)));
        for (asset, is_awaited) in linked.filter_map(|(one, side)| Some((assets.named(one)?, side))) {
            let id = asset.full_id();
            found.node(&dag, &structure.dag_id, "dag");
            found.node(&id, &asset.label, asset.kind);
            if is_awaited { found.edge(&id, &dag) } else { found.edge(&dag, &id) }
        }
        for task in &structure.tasks {
            let Some(Until::External(External { dag_id: awaited, .. })) = task.waits.as_ref().map(|wait| &wait.until)
            else {
                continue;
            };
            let (id, source) =
                (format!("sensor:{awaited}:{}:{}", structure.dag_id, task.task_id), format!("dag:{awaited}"));
            found.node(&dag, &structure.dag_id, "dag");
            found.node(&source, awaited, "dag");
            found.node(&id, &task.task_id, "sensor");
            found.edge(&source, &id);
            found.edge(&id, &dag);
        }
    }
    found
}

/// Which task makes an asset, and which reads it.
fn data(assets: &AssetNodes, structures: &[Arc<Structure>]) -> Dependencies {
    let mut found = Dependencies::default();
    let asset = |one: &Value| assets.named(one).filter(|asset| asset.kind == "asset");
    for structure in structures {
        for task in &structure.tasks {
            let id = format!("task:{}__SEPARATOR__{}", structure.dag_id, task.task_id);
            let sides = task.outlets.iter().map(|one| (one, true)).chain(task.inlets.iter().map(|one| (one, false)));
            for (asset, is_made) in sides.filter_map(|(one, side)| Some((asset(one)?, side))) {
                let other = asset.full_id();
                found.node(&id, &format!("{}.{}", structure.dag_id, task.task_id), "task");
                found.node(&other, &asset.label, asset.kind);
                if is_made { found.edge(&id, &other) } else { found.edge(&other, &id) }
            }
        }
        for asset in awaited(structure).into_iter().filter_map(asset) {
            found.node(&asset.full_id(), &asset.label, asset.kind);
        }
    }
    found
}
