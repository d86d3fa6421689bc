//! Airflow's bulk changes of runs and task instances: each is done or reported, and the others go on.

use super::api_error::ApiError;
use super::bulk::{Action, Bulk, BulkResponse, Kind, Otherwise, check_fields};
use super::state::AppState;
use axum::Json;
use axum::http::StatusCode;
use deadpool_postgres::Transaction;
use serde_json::{Map, Value};

/// As a body names it: by its name alone, or with what is to become of it.
pub enum Entity {
    Name(String),
    Body(Map<String, Value>),
}

/// What is changed in bulk by a key of several parts.
pub trait Keyed: Sync {
    /// What an entity names, which may be several.
    type Named: Send + Sync;
    type Key: Send + Sync;

    /// Why none is made.
    const NO_CREATE: &'static str;

    fn named(&self, entity: &Entity) -> Result<Self::Named, ApiError>;

    /// Whether the body can be one; what is wrong with it is told before anything is done.
    fn check(&self, body: &Map<String, Value>) -> Result<(), ApiError>;

    /// Those of the named that there are.
    fn there(
        &self,
        transaction: &Transaction<'_>,
        named: &Self::Named,
    ) -> impl Future<Output = Result<Vec<Self::Key>, ApiError>> + Send;

    fn not_found(&self, named: &[Self::Named]) -> ApiError;

    /// Changes what the body says, and the mask where there is one.
    fn change(
        &self,
        transaction: &Transaction<'_>,
        key: &Self::Key,
        body: Map<String, Value>,
        mask: &[String],
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    fn remove(
        &self,
        transaction: &Transaction<'_>,
        key: &Self::Key,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// In the list of what was done.
    fn shown(key: &Self::Key) -> String;
}

/// A field of an entity; `None` where it is not there, or empty.
pub fn text_of(body: &Map<String, Value>, field: &str) -> Result<Option<String>, ApiError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => {
            let location = ["body", "actions", "entities", field];
            Err(ApiError::unprocessable(&location, "string_type", "Input should be a valid string"))
        }
    }
}

fn entity(value: Value) -> Result<Entity, ApiError> {
    match value {
        Value::String(name) => Ok(Entity::Name(name)),
        Value::Object(body) => Ok(Entity::Body(body)),
        _ => {
            let location = ["body", "actions", "entities"];
            Err(ApiError::unprocessable(&location, "model_type", "Input should be an object"))
        }
    }
}

/// Does what a body asks for, action by action.
pub async fn run<K: Keyed, T>(state: &AppState, of: &K, body: Bulk<T>) -> Result<Json<BulkResponse>, ApiError> {
    let Bulk { actions, .. } = body;
    let mut read = Vec::new();
    for mut action in actions {
        check_fields(&action)?;
        let entities = std::mem::take(&mut action.entities).into_iter().map(entity).collect::<Result<Vec<_>, _>>()?;
        for entity in &entities {
            match entity {
                Entity::Body(body) => of.check(body)?,
                Entity::Name(_) if action.action == Kind::Delete => {}
                Entity::Name(_) => {
                    let location = ["body", "actions", "entities"];
                    return Err(ApiError::unprocessable(&location, "model_type", "Input should be an object"));
                }
            }
        }
        read.push((action, entities));
    }
    let mut outcome = BulkResponse::default();
    for (action, entities) in read {
        act(state, of, &action, entities, &mut outcome).await?;
    }
    Ok(Json(outcome))
}

async fn act<K: Keyed>(
    state: &AppState,
    of: &K,
    action: &Action,
    entities: Vec<Entity>,
    outcome: &mut BulkResponse,
) -> Result<(), ApiError> {
    let kind = action.action;
    if kind == Kind::Create {
        outcome.add(kind, Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, K::NO_CREATE)));
        return Ok(());
    }
    outcome.add(kind, Ok(Vec::new()));
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for entity in entities {
        let named = match of.named(&entity) {
            Ok(named) => named,
            Err(error) => {
                outcome.add(kind, Err(error));
                continue;
            }
        };
        let keys = of.there(&transaction, &named).await?;
        if keys.is_empty() {
            absent.push(named);
        }
        found.push((entity, keys));
    }
    if !absent.is_empty() && action.action_on_non_existence.unwrap_or_default() == Otherwise::Fail {
        outcome.add(kind, Err(of.not_found(&absent)));
        return Ok(());
    }
    transaction.commit().await?;
    let mask = action.update_mask.as_deref().unwrap_or_default();
    for (entity, keys) in found {
        for key in keys {
            // One that fails leaves nothing half done, and the others as they are.
            let done = async {
                let transaction = client.transaction().await?;
                match &entity {
                    Entity::Body(body) if kind == Kind::Update => {
                        of.change(&transaction, &key, body.clone(), mask).await?;
                    }
                    _ => of.remove(&transaction, &key).await?,
                }
                transaction.commit().await?;
                Ok(vec![K::shown(&key)])
            };
            let done = done.await;
            outcome.add(kind, done);
        }
    }
    Ok(())
}
