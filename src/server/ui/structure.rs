//! `/ui/structure/structure_data`: a DAG's graph with groups, and optionally its assets.

use super::asset_nodes::AssetNodes;
use super::joins::{Edge, downstream_join, edges_with_joins, upstream_join};
use super::tree::{Node, Part, loop_fields, tree};
use crate::api::prelude::*;
use leoflow_engine::model::dag::{Structure, Task};
use leoflow_engine::store::dag::{dags, versions};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub fn not_found(dag_id: &str) -> ApiError {
    ApiError::not_found(format!("Dag with id {dag_id} was not found"))
}

/// Parses which part of the DAG the query selects.
pub fn parse_part(params: &Params) -> ApiResult<Part> {
    Ok(Part {
        root: params.text("root").filter(|root| !root.is_empty()).map(str::to_owned),
        upstream: params.flag("include_upstream")?.unwrap_or(false),
        downstream: params.flag("include_downstream")?.unwrap_or(false),
        depth: params.whole("depth")?.map(|depth| usize::try_from(depth).unwrap_or(0)),
    })
}

/// Returns the structure of the version that the query selects; the newest by default.
async fn selected_version(client: &impl GenericClient, dag_id: &str, params: &Params) -> ApiResult<Structure> {
    let newest = dags::get(client, dag_id).await.map_err(|_| not_found(dag_id))?;
    let Some(number) = params.whole("version_number")?.filter(|number| *number != i64::from(newest.version_number))
    else {
        return Ok(newest.into_structure());
    };
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let structure = versions::structure(client, dag_id, number).await?;
    structure.ok_or_else(|| {
        let detail = format!("Dag with id {dag_id} and version number {number} was not found");
        ApiError::not_found(detail)
    })
}

pub async fn data(Datastore(client): Datastore, params: Params) -> JsonResult<Value> {
    let Some(dag_id) = params.text("dag_id") else {
        return Err(ApiError::unprocessable(&["query", "dag_id"], "missing", "Field required"));
    };
    let structure = parse_part(&params)?.reduce(selected_version(&*client, dag_id, &params).await?);
    let top = tree(&structure);
    let mut nodes: Vec<Value> = top.iter().map(|child| node(child, false)).collect();
    let mut edges = edges(&structure, edges_with_joins(&structure, &top));
    if let (Some(true), Some(first)) = (params.flag("external_dependencies")?, top.first().map(Node::id)) {
        let asset_graph = AssetGraph { assets: AssetNodes::load(&*client).await?, structure: &structure, first };
        asset_graph.add(&mut nodes, &mut edges);
    }
    Ok(Json(json!({"nodes": nodes, "edges": edges})))
}

/// Returns a node as JSON; nodes within a mapped group count as mapped.
fn node(current: &Node<'_>, is_within_mapped: bool) -> Value {
    let mut json = json!({
        "id": current.id(), "label": current.label(), "type": "task", "children": null, "is_mapped": null, "tooltip": null,
        "setup_teardown_type": null, "operator": null, "asset_condition_type": null, "team": null,
    });
    match current {
        Node::Task(task) => {
            json["operator"] = task.operator_name.as_str().into();
            json["setup_teardown_type"] = setup_or_teardown(task);
            if task.mapped || is_within_mapped {
                json["is_mapped"] = true.into();
            }
        }
        Node::Group { group, children, is_mapped } => {
            let mut child_nodes: Vec<Value> =
                children.iter().map(|child| node(child, is_within_mapped || *is_mapped)).collect();
            let join = |id: String| json!({"id": id, "label": "", "type": "join"});
            if group.has_upstream() {
                child_nodes.push(join(upstream_join(&group.group_id)));
            }
            if group.has_downstream() {
                child_nodes.push(join(downstream_join(&group.group_id)));
            }
            json["children"] = child_nodes.into();
            json["tooltip"] = group.tooltip.as_str().into();
            json["is_mapped"] = (*is_mapped).into();
            loop_fields(group).into_iter().for_each(|(name, value)| json[name] = value);
        }
    }
    json
}

pub fn setup_or_teardown(task: &Task) -> Value {
    match (task.is_setup, task.is_teardown) {
        (true, _) => "setup".into(),
        (_, true) => "teardown".into(),
        _ => Value::Null,
    }
}

fn edge(source: &str, target: &str) -> Value {
    json!({
        "source_id": source, "target_id": target, "is_setup_teardown": null, "label": null, "is_source_asset": null,
    })
}

/// Returns the edges as JSON, with the labels of the DAG.
fn edges(structure: &Structure, all: BTreeSet<Edge>) -> Vec<Value> {
    let tasks: HashMap<&str, &Task> = structure.tasks.iter().map(|task| (task.task_id.as_str(), task)).collect();
    let labels: HashMap<(&str, &str), &str> =
        structure.edge_labels.iter().map(|(from, to, label)| ((from.as_str(), to.as_str()), label.as_str())).collect();
    all.iter()
        .map(|(source, target)| {
            let (source, target) = (source.as_str(), target.as_str());
            let mut json = edge(source, target);
            let (from, to) = (tasks.get(source), tasks.get(target));
            let is_pair = from.is_some_and(|task| task.is_setup) && to.is_some_and(|task| task.is_teardown);
            if is_pair {
                json["is_setup_teardown"] = true.into();
            }
            if let Some(label) = labels.get(&(source, target)) {
                json["label"] = (*label).into();
            }
            json
        })
        .collect()
}

/// Adds assets and asset conditions to the graph.
struct AssetGraph<'a> {
    assets: AssetNodes,
    structure: &'a Structure,
    /// Id of the first node, to which the edge of the DAG's asset condition leads.
    first: &'a str,
}

impl AssetGraph<'_> {
    fn add(&self, nodes: &mut Vec<Value>, edges: &mut Vec<Value>) {
        let mut outlets = BTreeMap::new();
        for task in &self.structure.tasks {
            for asset in task.outlets.iter().filter_map(|outlet| self.assets.resolve(outlet)) {
                let id = asset.full_id();
                edges.push(edge(&task.task_id, &id));
                outlets.insert(id.clone(), json!({"id": id, "label": asset.label, "type": asset.kind}));
            }
        }
        nodes.extend(outlets.into_values());
        if let Some(condition) = &self.structure.asset_condition {
            self.add_condition(condition, nodes, edges);
        }
    }

    /// Adds a gate for the condition and for each condition in it, outer ones first.
    fn add_condition(&self, condition: &Value, nodes: &mut Vec<Value>, edges: &mut Vec<Value>) {
        let mut pending = vec![(condition, self.first.to_owned())];
        let (mut level, mut seen) = (0, BTreeSet::new());
        while let Some((condition, target)) = pending.pop() {
            let parts = |name: &str| condition.get(name).and_then(Value::as_array);
            let (gate, parts) = match (parts("all"), parts("any")) {
                (Some(parts), _) => ("and-gate", parts.iter().collect()),
                (_, Some(parts)) => ("or-gate", parts.iter().collect()),
                // A single asset counts as a condition with one part.
                _ => ("and-gate", vec![condition]),
            };
            let id = format!("{gate}-{level}");
            let mut into_target = edge(&id, &target);
            into_target["is_source_asset"] = (level == 0).into();
            edges.push(into_target);
            nodes.push(json!({"id": id, "label": id, "type": "asset-condition", "asset_condition_type": gate}));
            for part in parts {
                if part.get("all").is_some() || part.get("any").is_some() {
                    pending.push((part, id.clone()));
                } else if let Some(asset) = self.assets.resolve(part) {
                    edges.push(edge(&asset.id, &id));
                    if seen.insert(asset.id.clone()) {
                        nodes.push(json!({"id": asset.id, "label": asset.label, "type": asset.kind}));
                    }
                }
            }
            level += 1;
        }
    }
}
