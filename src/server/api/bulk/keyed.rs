//! Airflow's bulk operations on DAGs, runs and task instances: each run or instance is changed on its own, and a failure does
//! not undo the others.

use super::{Action, Bulk, BulkResponse, Kind, OnConflict, check_fields, not_an_object};
use crate::api::prelude::*;
use crate::history::deleted_logs::DeletedLogs;
use crate::state::Core;
use leoflow_base::home::Home;
use std::path::PathBuf;

/// An entity in a request body: a name alone, or an object with a key and, for an update, the changes.
pub enum Entity {
    Name(String),
    Body(Map<String, Value>),
}

/// A type of entity with bulk operations and a composite key.
pub trait KeyedEntities: Sync {
    /// A key as a request gives it; it may match several entities.
    type Selector: Send + Sync;
    type Key: Send + Sync;

    /// The error message: entities of this type cannot be created in bulk.
    const CREATE_REFUSAL: &'static str;

    /// Parses the key of an entity in a request.
    fn selector(&self, entity: &Entity) -> ApiResult<Self::Selector>;

    /// Validates a body; errors are reported before anything is changed.
    fn check(&self, body: &Map<String, Value>) -> ApiResult<()>;

    /// Returns the keys that match the selector and exist.
    fn existing(
        &self,
        transaction: &Transaction<'_>,
        selector: &Self::Selector,
    ) -> impl Future<Output = ApiResult<Vec<Self::Key>>> + Send;

    /// The error for selectors that match nothing.
    fn not_found(&self, selectors: &[Self::Selector]) -> ApiError;

    /// Changes the fields in the body, limited to the mask when given.
    fn change(
        &self,
        transaction: &Transaction<'_>,
        key: &Self::Key,
        body: Map<String, Value>,
        mask: &[String],
    ) -> impl Future<Output = ApiResult<()>> + Send;

    fn remove(&self, transaction: &Transaction<'_>, key: &Self::Key) -> impl Future<Output = ApiResult<()>> + Send;

    /// Returns the folder with the logs of the run or instance that `remove` deletes.
    fn log_folder(home: &Home, key: &Self::Key) -> PathBuf;

    /// Formats a key for the list of successes.
    fn format_key(key: &Self::Key) -> String;
}

/// Returns a text field of an entity; `None` when absent or empty.
pub fn text_of(body: &Map<String, Value>, field: &str) -> ApiResult<Option<String>> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => {
            let location = ["body", "actions", "entities", field];
            Err(ApiError::unprocessable(&location, "string_type", "Input should be a valid string"))
        }
    }
}

/// Returns a text field of an entity; 422 when absent or empty.
pub fn require_text(body: &Map<String, Value>, field: &str) -> ApiResult<String> {
    let location = ["body", "actions", "entities", field];
    text_of(body, field)?.ok_or_else(|| ApiError::unprocessable(&location, "missing", "Field required"))
}

fn parse_entity(value: Value) -> ApiResult<Entity> {
    match value {
        Value::String(name) => Ok(Entity::Name(name)),
        Value::Object(body) => Ok(Entity::Body(body)),
        _ => Err(not_an_object()),
    }
}

/// Validates all actions, then applies them one by one.
pub async fn run<K: KeyedEntities, T>(core: &Core, handler: &K, body: Bulk<T>) -> JsonResult<BulkResponse> {
    let Bulk { actions, .. } = body;
    let mut parsed = Vec::new();
    for mut action in actions {
        check_fields(&action)?;
        let entities =
            std::mem::take(&mut action.entities).into_iter().map(parse_entity).collect::<Result<Vec<_>, _>>()?;
        for entity in &entities {
            match entity {
                Entity::Body(body) => handler.check(body)?,
                Entity::Name(_) if action.action == Kind::Delete => {}
                Entity::Name(_) => return Err(not_an_object()),
            }
        }
        parsed.push((action, entities));
    }
    let mut outcome = BulkResponse::default();
    for (action, entities) in parsed {
        apply(core, handler, &action, entities, &mut outcome).await?;
    }
    Ok(Json(outcome))
}

async fn apply<K: KeyedEntities>(
    core: &Core,
    handler: &K,
    action: &Action,
    entities: Vec<Entity>,
    outcome: &mut BulkResponse,
) -> ApiResult<()> {
    let kind = action.action;
    if kind == Kind::Create {
        outcome.add(kind, Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, K::CREATE_REFUSAL)));
        return Ok(());
    }
    outcome.add(kind, Ok(Vec::new()));
    let mut client = core.database.get().await?;
    let transaction = client.transaction().await?;
    let (matches, unmatched) = find(handler, &transaction, kind, entities, outcome).await?;
    if !unmatched.is_empty() && action.action_on_non_existence.unwrap_or_default() == OnConflict::Fail {
        outcome.add(kind, Err(handler.not_found(&unmatched)));
        return Ok(());
    }
    transaction.commit().await?;
    for (entity, keys) in matches {
        for key in keys {
            // A failed change is rolled back and does not affect the others.
            let result = async {
                let transaction = client.transaction().await?;
                let logs = apply_to_one(core, handler, &transaction, action, &entity, &key).await?;
                transaction.commit().await?;
                logs.into_iter().for_each(DeletedLogs::remove);
                Ok(vec![K::format_key(&key)])
            };
            let result = result.await;
            outcome.add(kind, result);
        }
    }
    Ok(())
}

/// Entities with the keys that they match.
type Matches<K> = Vec<(Entity, Vec<<K as KeyedEntities>::Key>)>;

/// Returns the keys that each entity matches, and the selectors that match nothing. Adds errors of selectors to the
/// outcome.
async fn find<K: KeyedEntities>(
    handler: &K,
    transaction: &Transaction<'_>,
    kind: Kind,
    entities: Vec<Entity>,
    outcome: &mut BulkResponse,
) -> ApiResult<(Matches<K>, Vec<K::Selector>)> {
    let (mut matches, mut unmatched) = (Vec::new(), Vec::new());
    for entity in entities {
        let selector = match handler.selector(&entity) {
            Ok(selector) => selector,
            Err(error) => {
                outcome.add(kind, Err(error));
                continue;
            }
        };
        let keys = handler.existing(transaction, &selector).await?;
        if keys.is_empty() {
            unmatched.push(selector);
        }
        matches.push((entity, keys));
    }
    Ok((matches, unmatched))
}

/// Changes the entity with this key if the action is an update with a body, otherwise deletes it and returns its logs,
/// which the caller removes after the commit.
async fn apply_to_one<K: KeyedEntities>(
    core: &Core,
    handler: &K,
    transaction: &Transaction<'_>,
    action: &Action,
    entity: &Entity,
    key: &K::Key,
) -> ApiResult<Option<DeletedLogs>> {
    match entity {
        Entity::Body(body) if action.action == Kind::Update => {
            let mask = action.update_mask.as_deref().unwrap_or_default();
            handler.change(transaction, key, body.clone(), mask).await?;
            Ok(None)
        }
        _ => {
            handler.remove(transaction, key).await?;
            Ok(Some(DeletedLogs::quarantine(&core.home, K::log_folder(&core.home, key)).await))
        }
    }
}
