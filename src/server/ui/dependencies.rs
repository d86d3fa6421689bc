//! `/ui/dependencies`: how DAGs, assets and tasks hang together.

use crate::engine::dag::{External, Structure, Until};
use crate::engine::schedule::asset_condition::{self, Reference};
use crate::engine::store::listing::Listing;
use crate::engine::store::{asset_lists, dags};
use crate::postgres::GenericClient;
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
    let structures: Vec<Structure> =
        dags::list(&*client, all).await?.rows.into_iter().map(|dag| dag.structure).collect();
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
            let mut found = data(&*client, &structures).await?;
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
    let mut found = scheduling(&*client, &structures).await?;
    if let Some(id) = node_id {
        if !found.nodes.contains_key(id) {
            return refuse(StatusCode::NOT_FOUND, format!("Unique connected component not found for node {id}"));
        }
        found.around(id);
    }
    Ok(Json(found.shown()))
}

/// Its node's id, its kind, and what it is called.
async fn named(client: &impl GenericClient, one: &Value) -> Result<Option<(String, &'static str, String)>, ApiError> {
    Ok(match asset_condition::reference(one) {
        Some(Reference::Asset { name, uri }) => {
            let id = asset_lists::id_of(client, name, uri).await?;
            id.map(|id| (format!("asset:{id}"), "asset", name.to_owned()))
        }
        Some(Reference::Alias(name)) => Some((format!("asset-alias:{name}"), "asset-alias", name.to_owned())),
        Some(Reference::Name(name)) => Some((format!("asset-name-ref:{name}"), "asset-name-ref", name.to_owned())),
        Some(Reference::Uri(uri)) => Some((format!("asset-uri-ref:{uri}"), "asset-uri-ref", uri.to_owned())),
        None => None,
    })
}

/// The parts of a condition that are no conditions.
fn parts(condition: &Value) -> Vec<&Value> {
    let inner = ["all", "any"].into_iter().find_map(|name| condition.get(name).and_then(Value::as_array));
    inner.map_or_else(|| vec![condition], |inner| inner.iter().flat_map(parts).collect())
}

/// What makes one DAG begin after another: assets, sensors that wait for it, operators that start it.
async fn scheduling(client: &impl GenericClient, structures: &[Structure]) -> Result<Dependencies, ApiError> {
    let mut found = Dependencies::default();
    for structure in structures {
        let dag = format!("dag:{}", structure.dag_id);
        let mut linked = Vec::new();
        for part in structure.asset_condition.iter().flat_map(parts) {
            linked.extend(named(client, part).await?.map(|asset| (asset, true)));
        }
        for outlet in structure.tasks.iter().flat_map(|task| &task.outlets) {
            linked.extend(named(client, outlet).await?.map(|asset| (asset, false)));
        }
        for ((id, kind, label), is_awaited) in linked {
            found.node(&dag, &structure.dag_id, "dag");
            found.node(&id, &label, kind);
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
    Ok(found)
}

/// Which task makes an asset, and which reads it.
async fn data(client: &impl GenericClient, structures: &[Structure]) -> Result<Dependencies, ApiError> {
    let mut found = Dependencies::default();
    for structure in structures {
        for task in &structure.tasks {
            let id = format!("task:{}__SEPARATOR__{}", structure.dag_id, task.task_id);
            let sides = task.outlets.iter().map(|one| (one, true)).chain(task.inlets.iter().map(|one| (one, false)));
            for (one, is_made) in sides {
                let Some((asset, kind @ "asset", label)) = named(client, one).await? else { continue };
                found.node(&id, &format!("{}.{}", structure.dag_id, task.task_id), "task");
                found.node(&asset, &label, kind);
                if is_made { found.edge(&id, &asset) } else { found.edge(&asset, &id) }
            }
        }
        for part in structure.asset_condition.iter().flat_map(parts) {
            if let Some((asset, kind @ "asset", label)) = named(client, part).await? {
                found.node(&asset, &label, kind);
            }
        }
    }
    Ok(found)
}
