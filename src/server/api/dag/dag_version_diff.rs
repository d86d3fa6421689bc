//! `/api/v2/dags/{dag_id}/dagVersions/diff`: what differs between the structures of two versions of a DAG.

use crate::api::prelude::*;
use leoflow_engine::store::dag::versions;
use sha2::{Digest, Sha256};

query! {
    pub DiffQuery {
        Parameter::new("base_version_number", Kind::Positive).required(),
        Parameter::new("target_version_number", Kind::Positive).required(),
        Parameter::new("max_changes", Kind::UpTo(MAX_CHANGES)).or("500"),
    }
}

/// Version of this form.
const DIFF_SCHEMA: i32 = 1;
const DEFAULT_CHANGES: i64 = 500;
const MAX_CHANGES: i64 = 5000;

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the others do not occur in a structure")]
enum DagVersionDiffCategory {
    Asset,
    Authorization,
    Callback,
    Deadline,
    Dependency,
    Metadata,
    Param,
    Provenance,
    Schedule,
    Task,
    Unknown,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the others do not occur in a structure")]
enum DagVersionDiffImpact {
    Authorization,
    Execution,
    Metadata,
    Provenance,
    Unknown,
}

/// Whether both versions could be compared.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "structures are always there")]
enum DagVersionDiffMode {
    ObservedState,
    Unavailable,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum DagVersionDiffOperation {
    Added,
    Removed,
    Changed,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "structures are always there")]
enum DagVersionDiffValuesStatus {
    Available,
    Unavailable,
}

#[derive(Serialize, JsonSchema)]
struct DagVersionDiffSerializerVersions {
    base: Option<i32>,
    target: Option<i32>,
}

#[derive(Serialize, JsonSchema)]
struct DagVersionDiffChangeResponse {
    path: String,
    operation: DagVersionDiffOperation,
    category: DagVersionDiffCategory,
    impact: DagVersionDiffImpact,
    occurrence_count: i32,
    before_digest: Option<String>,
    after_digest: Option<String>,
    before_value: Value,
    after_value: Value,
}

#[derive(Serialize, JsonSchema)]
pub struct DagVersionDiffResponse {
    diff_schema_version: i32,
    base_version_number: i32,
    target_version_number: i32,
    serializer_versions: DagVersionDiffSerializerVersions,
    mode: DagVersionDiffMode,
    unavailable_reason: Option<String>,
    values_status: DagVersionDiffValuesStatus,
    truncated: bool,
    total_changes: usize,
    changes: Vec<DagVersionDiffChangeResponse>,
}

pub async fn get(
    Datastore(client): Datastore,
    Id(dag_id): Id,
    params: QueryParams<DiffQuery>,
) -> JsonResult<DagVersionDiffResponse> {
    let (base, target) =
        (params.required_number("base_version_number")?, params.required_number("target_version_number")?);
    let max = params.whole("max_changes")?.unwrap_or(DEFAULT_CHANGES);
    if !(1..=MAX_CHANGES).contains(&max) {
        let message = format!("Input should be from 1 to {MAX_CHANGES}");
        return Err(ApiError::unprocessable(&["query", "max_changes"], "value_error", message));
    }
    let mut structures = Vec::new();
    for number in [base, target] {
        let structure = versions::structure_json(&*client, &dag_id, number).await?;
        structures.push(structure.ok_or_else(|| {
            let detail = format!("The DagVersion with dag_id: `{dag_id}` and version_number: `{number}` was not found");
            ApiError::not_found(detail)
        })?);
    }
    let mut changes = Vec::new();
    compare(String::new(), &keyed(structures.remove(0)), &keyed(structures.remove(0)), &mut changes);
    let total_changes = changes.len();
    changes.truncate(usize::try_from(max).unwrap_or(usize::MAX));
    Ok(Json(DagVersionDiffResponse {
        diff_schema_version: DIFF_SCHEMA,
        base_version_number: base,
        target_version_number: target,
        serializer_versions: DagVersionDiffSerializerVersions { base: None, target: None },
        mode: DagVersionDiffMode::ObservedState,
        unavailable_reason: None,
        values_status: DagVersionDiffValuesStatus::Available,
        truncated: total_changes > changes.len(),
        total_changes,
        changes,
    }))
}

/// The structure with its tasks and groups by id, so that a task that moves in the list is the same task.
fn keyed(mut structure: Value) -> Value {
    for (list, id) in [("tasks", "task_id"), ("groups", "group_id")] {
        if let Some(Value::Array(items)) = structure.get_mut(list).map(Value::take) {
            let named = items.into_iter().map(|item| (item[id].as_str().unwrap_or_default().to_owned(), item));
            structure[list] = Value::Object(named.collect());
        }
    }
    structure
}

fn compare(path: String, before: &Value, after: &Value, changes: &mut Vec<DagVersionDiffChangeResponse>) {
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        let added = new.keys().filter(|name| !old.contains_key(*name));
        for name in old.keys().chain(added) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (old.get(name), new.get(name)) {
                (Some(before), Some(after)) => compare(path, before, after, changes),
                (before, after) => changes.push(change(path, before, after)),
            }
        }
    } else if before != after {
        changes.push(change(path, Some(before), Some(after)));
    }
}

fn change(path: String, before: Option<&Value>, after: Option<&Value>) -> DagVersionDiffChangeResponse {
    let digest = |value: Option<&Value>| value.map(|value| hex::encode(Sha256::digest(value.to_string().as_bytes())));
    let (category, impact) = kind_of(&path);
    DagVersionDiffChangeResponse {
        operation: match (before, after) {
            (None, _) => DagVersionDiffOperation::Added,
            (_, None) => DagVersionDiffOperation::Removed,
            _ => DagVersionDiffOperation::Changed,
        },
        category,
        impact,
        path,
        occurrence_count: 1,
        before_digest: digest(before),
        after_digest: digest(after),
        before_value: before.cloned().unwrap_or_default(),
        after_value: after.cloned().unwrap_or_default(),
    }
}

/// What a field of a structure is about, and what a change of it changes.
fn kind_of(path: &str) -> (DagVersionDiffCategory, DagVersionDiffImpact) {
    use DagVersionDiffCategory as Category;
    use DagVersionDiffImpact as Impact;
    let first = path.split('.').next().unwrap_or_default();
    let last = path.rsplit('.').next().unwrap_or_default();
    match (first, last) {
        ("tasks", "upstream" | "downstream") => (Category::Dependency, Impact::Execution),
        ("tasks", "doc_md" | "owner") => (Category::Task, Impact::Metadata),
        ("tasks" | "groups", "inlets" | "outlets") | ("asset_condition", _) => (Category::Asset, Impact::Execution),
        ("tasks" | "groups", _) => (Category::Task, Impact::Execution),
        ("params", _) => (Category::Param, Impact::Execution),
        ("deadlines", _) => (Category::Deadline, Impact::Execution),
        ("on_success_callback" | "on_failure_callback" | "run_listeners" | "task_failure_callbacks", _) => {
            (Category::Callback, Impact::Execution)
        }
        ("schedule" | "start_date" | "end_date" | "catchup" | "timezone" | "earliest" | "latest", _) => {
            (Category::Schedule, Impact::Execution)
        }
        (name, _) if name.starts_with("timetable") => (Category::Schedule, Impact::Execution),
        ("description" | "doc_md" | "tags" | "owners" | "owner_links" | "dag_display_name" | "edge_labels", _) => {
            (Category::Metadata, Impact::Metadata)
        }
        _ => (Category::Unknown, Impact::Execution),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_compared_by_their_id() {
        let task = |id: &str, retries: i32| json!({"task_id": id, "retries": retries});
        let old = json!({"doc_md": "a", "tasks": [task("x", 1), task("y", 0)]});
        let new = json!({"doc_md": "b", "tasks": [task("z", 0), task("x", 2)]});
        let mut changes = Vec::new();
        compare(String::new(), &keyed(old), &keyed(new), &mut changes);
        let mut paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["doc_md", "tasks.x.retries", "tasks.y", "tasks.z"]);
    }
}
