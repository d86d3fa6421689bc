//! `PATCH …/taskInstances`: changes and deletes task instances in bulk.

use super::mark::{PatchTaskInstanceBody, same_state};
use crate::api::bulk::keyed::{self, Entity, KeyedEntities, require_text, text_of};
use crate::api::bulk::{Bulk, BulkResponse};
use crate::api::prelude::*;
use crate::api::regions;
use crate::api::views::Uuid;
use crate::http::body::fields_as;
use leoflow_base::home::Home;
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::instance::{instances, mark};
use std::path::PathBuf;
use std::slice;

/// Instances of the run in the path, or of any run when the path says `~`.
struct TaskInstances {
    path: RunKey,
}

/// A task instance and the change to apply.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only for the JSON schema; `selector` and `parse_patch` parse the fields")]
pub struct BulkTaskInstanceBody {
    task_id: String,
    #[serde(default)]
    map_index: Option<i32>,
    #[serde(default)]
    #[schemars(with = "Option<Uuid>")]
    region_id: Option<String>,
    #[serde(default)]
    region_index: Option<i32>,
    #[serde(default)]
    dag_id: Option<String>,
    #[serde(default)]
    dag_run_id: Option<String>,
    #[serde(default)]
    new_state: Option<TaskState>,
    #[serde(default)]
    #[schemars(length(max = 1000))]
    note: Option<String>,
    #[serde(default)]
    include_upstream: bool,
    #[serde(default)]
    include_downstream: bool,
    #[serde(default)]
    include_future: bool,
    #[serde(default)]
    include_past: bool,
}

/// All instances of a task, or one of them.
struct InstanceSelector {
    run: RunKey,
    task_id: String,
    position: Option<Position>,
}

/// Fields of a body that identify instances; the other fields are the change.
const KEY_FIELDS: [&str; 6] = ["task_id", "map_index", "region_id", "region_index", "dag_id", "dag_run_id"];

/// Returns the position that a body names.
fn position_of(body: &Map<String, Value>) -> ApiResult<Option<Position>> {
    let index = |name: &'static str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let index = value.as_i64().filter(|index| *index >= -1).and_then(|index| i32::try_from(index).ok());
            let location = ["body", "actions", "entities", name];
            let invalid = || ApiError::unprocessable(&location, "int_type", "Input should be a valid integer");
            index.map(Some).ok_or_else(invalid)
        }
    };
    let region_id = text_of(body, "region_id")?;
    regions::position("body", region_id.as_deref(), index("region_index")?, index("map_index")?)
}

fn parse_patch(mut entity: Map<String, Value>) -> ApiResult<PatchTaskInstanceBody> {
    entity.retain(|name, _| !KEY_FIELDS.contains(&name.as_str()));
    fields_as(entity)
}

impl KeyedEntities for TaskInstances {
    type Selector = InstanceSelector;
    type Key = InstanceKey;

    const CREATE_REFUSAL: &'static str = "Task instances bulk create is not supported";

    fn selector(&self, entity: &Entity) -> ApiResult<InstanceSelector> {
        let (name, body) = match entity {
            Entity::Name(name) => (name.clone(), None),
            Entity::Body(body) => (text_of(body, "task_id")?.unwrap_or_default(), Some(body)),
        };
        let text_field = |field| body.map_or(Ok(None), |body| text_of(body, field));
        let run = RunKey {
            dag_id: text_field("dag_id")?.unwrap_or_else(|| self.path.dag_id.clone()),
            run_id: text_field("dag_run_id")?.unwrap_or_else(|| self.path.run_id.clone()),
        };
        if run.dag_id == "~" || run.run_id == "~" {
            let location = match body {
                None => "BulkTaskInstanceBody object, not as string",
                Some(_) => "request body",
            };
            let detail = format!(
                "When using wildcard in path, dag_id and dag_run_id must be specified in {location} for task_id: {name}"
            );
            return Err(ApiError::bad_request(detail));
        }
        Ok(InstanceSelector { run, task_id: name, position: body.map_or(Ok(None), position_of)? })
    }

    fn check(&self, body: &Map<String, Value>) -> ApiResult<()> {
        require_text(body, "task_id")?;
        position_of(body)?;
        parse_patch(body.clone())?.into_change(&[]).map(drop)
    }

    async fn existing(
        &self,
        transaction: &Transaction<'_>,
        selector: &InstanceSelector,
    ) -> ApiResult<Vec<InstanceKey>> {
        let mut keys = instances::of_task(transaction, &selector.run, &selector.task_id).await?;
        keys.retain(|key| selector.position.is_none_or(|position| position == key.position));
        Ok(keys)
    }

    fn not_found(&self, selectors: &[InstanceSelector]) -> ApiError {
        let ids = selectors.iter().map(|selector| {
            let RunKey { dag_id, run_id } = &selector.run;
            json!({"dag_id": dag_id, "dag_run_id": run_id, "task_id": selector.task_id, "map_index": selector.position.map(Position::map_index)})
        });
        let ids: Value = ids.collect();
        ApiError::not_found(format!("The task instances with these identifiers: {ids} were not found"))
    }

    async fn change(
        &self,
        transaction: &Transaction<'_>,
        key: &InstanceKey,
        body: Map<String, Value>,
        mask: &[String],
    ) -> ApiResult<()> {
        let change = parse_patch(body)?.into_change(mask)?;
        let marking = change.marking(vec![key.task_id.clone()], Some(key.position));
        let changed = change.apply(transaction, &key.run, slice::from_ref(key), marking.as_ref()).await?;
        if changed.is_some_and(|changed| changed.is_empty()) {
            return Err(same_state(&format!("Task id {} is", key.task_id), change.state));
        }
        Ok(())
    }

    async fn remove(&self, transaction: &Transaction<'_>, key: &InstanceKey) -> ApiResult<()> {
        Ok(mark::delete_instance(transaction, key).await?)
    }

    fn log_folder(home: &Home, key: &InstanceKey) -> PathBuf {
        key.log_folder(home)
    }

    fn format_key(key: &InstanceKey) -> String {
        format!("{}.{}.{}[{}]", key.run.dag_id, key.run.run_id, key.task_id, key.position.map_index())
    }
}

pub async fn task_instances(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<RunPath>,
    Body(body): Body<Bulk<BulkTaskInstanceBody>>,
) -> JsonResult<BulkResponse> {
    keyed::run(&state.core, &TaskInstances { path: RunKey { dag_id, run_id } }, body).await
}
