//! `/ui/dependencies`: the graph of DAGs, assets and tasks.

use super::asset_nodes::AssetNodes;
use crate::api::prelude::*;
use leoflow_engine::model::dag::{External, Structure, Until};
use leoflow_engine::schedule::asset_condition;
use leoflow_engine::store::dag::dags::{self, Activity, DagFilter};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A graph for the UI.
#[derive(Default)]
struct Dependencies {
    /// Label and type by id.
    nodes: BTreeMap<String, (String, &'static str)>,
    edges: BTreeSet<(String, String)>,
}

impl Dependencies {
    fn add_node(&mut self, id: &str, label: &str, kind: &'static str) {
        self.nodes.entry(id.to_owned()).or_insert_with(|| (label.to_owned(), kind));
    }

    fn add_edge(&mut self, source: &str, target: &str) {
        self.edges.insert((source.to_owned(), target.to_owned()));
    }

    fn to_json(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|(id, (label, kind))| json!({"id": id, "label": label, "type": kind, "team": null}))
            .collect();
        let edges: Vec<Value> =
            self.edges.iter().map(|(source, target)| json!({"source_id": source, "target_id": target})).collect();
        json!({"nodes": nodes, "edges": edges})
    }

    /// Keeps only the nodes and edges that are connected with a node, in any direction.
    fn keep_connected(&mut self, id: &str) {
        let (mut reached, mut pending) = (BTreeSet::from([id.to_owned()]), vec![id.to_owned()]);
        while let Some(reached_id) = pending.pop() {
            for (source, target) in &self.edges {
                let other = if *source == reached_id { target } else { source };
                if (*source == reached_id || *target == reached_id) && reached.insert(other.clone()) {
                    pending.push(other.clone());
                }
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
        self.edges.retain(|(source, _)| reached.contains(source));
    }
}

pub async fn get(State(state): Shared, params: Params) -> JsonResult<Value> {
    let client = state.core.database.get().await?;
    let listing = Listing::of(DagFilter { activity: Activity::Active, ..DagFilter::default() });
    let structures: Vec<Arc<Structure>> = dags::list(&*client, &state.dag_files.structures, listing)
        .await?
        .rows
        .into_iter()
        .map(|dag| dag.structure)
        .collect();
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
            let mut graph = data_graph(&assets, &structures);
            if !graph.nodes.contains_key(&format!("asset:{asset}")) {
                return refuse(StatusCode::NOT_FOUND, format!("Asset with id {asset} was not found"));
            }
            graph.keep_connected(&format!("asset:{asset}"));
            return Ok(Json(graph.to_json()));
        }
        Some(_) => {
            let message = "Input should be 'scheduling' or 'data'";
            return Err(ApiError::unprocessable(&["query", "dependency_type"], "literal_error", message));
        }
    }
    let mut graph = scheduling_graph(&assets, &structures);
    if let Some(id) = node_id {
        if !graph.nodes.contains_key(id) {
            return refuse(StatusCode::NOT_FOUND, format!("Unique connected component not found for node {id}"));
        }
        graph.keep_connected(id);
    }
    Ok(Json(graph.to_json()))
}

/// Lists the references to assets in a DAG's condition.
fn awaited_references(structure: &Structure) -> Vec<&Value> {
    let mut references = Vec::new();
    if let Some(condition) = &structure.asset_condition {
        asset_condition::references(condition, &mut references);
    }
    references
}

/// Builds the graph of DAGs with the assets that they wait for or produce, and with the sensors that wait for other
/// DAGs.
fn scheduling_graph(assets: &AssetNodes, structures: &[Arc<Structure>]) -> Dependencies {
    let mut graph = Dependencies::default();
    for structure in structures {
        let dag = format!("dag:{}", structure.dag_id);
        let outlets = structure.tasks.iter().flat_map(|task| &task.outlets);
        let linked = awaited_references(structure)
            .into_iter()
            .map(|reference| (reference, true))
            .chain(outlets.map(|reference| (reference, false)));
        for (asset, is_awaited) in
            linked.filter_map(|(reference, is_awaited)| Some((assets.resolve(reference)?, is_awaited)))
        {
            let id = asset.full_id();
            graph.add_node(&dag, &structure.dag_id, "dag");
            graph.add_node(&id, &asset.label, asset.kind);
            if is_awaited { graph.add_edge(&id, &dag) } else { graph.add_edge(&dag, &id) }
        }
        for task in &structure.tasks {
            let Some(Until::External(External { dag_id: awaited_dag, .. })) =
                task.waits.as_ref().map(|wait| &wait.until)
            else {
                continue;
            };
            let (id, source) =
                (format!("sensor:{awaited_dag}:{}:{}", structure.dag_id, task.task_id), format!("dag:{awaited_dag}"));
            graph.add_node(&dag, &structure.dag_id, "dag");
            graph.add_node(&source, awaited_dag, "dag");
            graph.add_node(&id, &task.task_id, "sensor");
            graph.add_edge(&source, &id);
            graph.add_edge(&id, &dag);
        }
    }
    graph
}

/// Builds the graph of tasks that produce or consume assets.
fn data_graph(assets: &AssetNodes, structures: &[Arc<Structure>]) -> Dependencies {
    let mut graph = Dependencies::default();
    let data_asset = |reference: &Value| assets.resolve(reference).filter(|asset| asset.kind == "asset");
    for structure in structures {
        for task in &structure.tasks {
            let id = format!("task:{}__SEPARATOR__{}", structure.dag_id, task.task_id);
            let links = task
                .outlets
                .iter()
                .map(|reference| (reference, true))
                .chain(task.inlets.iter().map(|reference| (reference, false)));
            for (asset, is_outlet) in
                links.filter_map(|(reference, is_outlet)| Some((data_asset(reference)?, is_outlet)))
            {
                let asset_id = asset.full_id();
                graph.add_node(&id, &format!("{}.{}", structure.dag_id, task.task_id), "task");
                graph.add_node(&asset_id, &asset.label, asset.kind);
                if is_outlet { graph.add_edge(&id, &asset_id) } else { graph.add_edge(&asset_id, &id) }
            }
        }
        for asset in awaited_references(structure).into_iter().filter_map(data_asset) {
            graph.add_node(&asset.full_id(), &asset.label, asset.kind);
        }
    }
    graph
}
