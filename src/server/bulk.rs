//! Airflow's bulk changes: a list of actions, each of which is done whole or not at all.

use super::api_error::ApiError;
use super::state::AppState;
use axum::Json;
use axum::http::StatusCode;
use deadpool_postgres::Transaction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::marker::PhantomData;

/// Of entities of the type `T`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct Bulk<T> {
    pub actions: Vec<Action>,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Create,
    Update,
    Delete,
}

/// What happens with an entity that is there already, or is not.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    #[default]
    Fail,
    Skip,
    Overwrite,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    pub action: Kind,
    pub entities: Vec<Value>,
    #[serde(default)]
    action_on_existence: Option<Otherwise>,
    #[serde(default)]
    pub action_on_non_existence: Option<Otherwise>,
    #[serde(default)]
    pub update_mask: Option<Vec<String>>,
}

/// What can be changed in bulk.
pub trait Entities: Sync {
    /// For messages.
    const WHAT: &'static str;
    /// Fields of an entity that may have its name.
    const NAMES: &'static [&'static str];
    /// Whether one that is made again loses what the new does not say, as in Airflow.
    const IS_REPLACED: bool;

    /// Those of these names that there are.
    fn there(
        &self,
        transaction: &Transaction<'_>,
        names: &[String],
    ) -> impl Future<Output = Result<Vec<String>, ApiError>> + Send;

    /// Whether the body can be one; what is wrong with it is told before anything is done.
    fn check(body: Body) -> Result<(), ApiError>;

    /// Makes one, or writes over it whole.
    fn set(&self, transaction: &Transaction<'_>, body: Body) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Changes the fields of one that are in the body, and in the mask where there is one.
    fn change(
        &self,
        transaction: &Transaction<'_>,
        body: Body,
        mask: &[String],
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    fn remove(&self, transaction: &Transaction<'_>, name: &str) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// An entity as the body of a request has it.
pub type Body = Map<String, Value>;

/// Does what a body asks for, action by action.
pub async fn run<E: Entities, T>(
    state: &AppState,
    entities: &E,
    body: Bulk<T>,
) -> Result<Json<BulkResponse>, ApiError> {
    let Bulk { actions, .. } = body;
    actions.iter().try_for_each(check::<E>)?;
    let mut outcome = BulkResponse::default();
    for action in actions {
        let kind = action.action;
        outcome.add(kind, act(state, entities, action).await);
    }
    Ok(Json(outcome))
}

/// Each kind of action has fields of its own.
pub fn check_fields(action: &Action) -> Result<(), ApiError> {
    let wrong = |kind: &str, message: &str| Err(ApiError::unprocessable(&["body", "actions"], kind, message));
    let has_more = match action.action {
        Kind::Create => action.update_mask.is_some() || action.action_on_non_existence.is_some(),
        Kind::Update => action.action_on_existence.is_some(),
        Kind::Delete => action.update_mask.is_some() || action.action_on_existence.is_some(),
    };
    if has_more {
        return wrong("extra_forbidden", "Extra inputs are not permitted");
    }
    if action.action_on_non_existence == Some(Otherwise::Overwrite) {
        return wrong("enum", "Input should be 'fail' or 'skip'");
    }
    Ok(())
}

/// Nothing is done where a part of the body cannot be.
fn check<E: Entities>(action: &Action) -> Result<(), ApiError> {
    check_fields(action)?;
    let wrong = |kind: &str, message: &str| Err(ApiError::unprocessable(&["body", "actions"], kind, message));
    for entity in &action.entities {
        match (entity, action.action) {
            (entity, _) if name_in(entity, E::NAMES).is_none() => return wrong("missing", "Field required"),
            (Value::Object(body), Kind::Create | Kind::Update) => E::check(body.clone())?,
            (Value::String(_), Kind::Create | Kind::Update) => {
                return wrong("model_type", "Input should be an object");
            }
            _ => {}
        }
    }
    Ok(())
}

/// One action, whole or not at all. Returns the names that it was done to.
async fn act<E: Entities>(state: &AppState, entities: &E, action: Action) -> Result<Vec<String>, ApiError> {
    let (kind, mask) = (action.action, action.update_mask.clone().unwrap_or_default());
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let asked: Vec<String> = action.entities.iter().filter_map(|entity| name_in(entity, E::NAMES)).collect();
    let there = entities.there(&transaction, &asked).await?;
    let Sorted { chosen, names } = sort(action, E::WHAT, |entity| name_in(entity, E::NAMES), &there)?;
    for (entity, name) in chosen.into_iter().zip(&names) {
        match (kind, entity) {
            (Kind::Delete, _) => entities.remove(&transaction, name).await?,
            // What it does not say of one that there is stays as it is.
            (Kind::Create, Value::Object(body)) if !E::IS_REPLACED && there.contains(name) => {
                entities.change(&transaction, body, &[]).await?;
            }
            (Kind::Create, Value::Object(body)) => entities.set(&transaction, body).await?,
            (Kind::Update, Value::Object(body)) => entities.change(&transaction, body, &mask).await?,
            _ => {
                let message = "Input should be an object";
                return Err(ApiError::unprocessable(&["body", "actions", "entities"], "model_type", message));
            }
        }
    }
    transaction.commit().await?;
    Ok(names)
}

/// An entity's name: in this field, or the entity itself where it is only named.
fn name_in(entity: &Value, fields: &[&str]) -> Option<String> {
    let named = fields.iter().find_map(|field| entity[*field].as_str());
    named.or_else(|| entity.as_str()).map(str::to_owned)
}

/// What came of the actions.
#[derive(Default, Serialize, JsonSchema)]
pub struct BulkResponse {
    create: Option<BulkActionResponse>,
    update: Option<BulkActionResponse>,
    delete: Option<BulkActionResponse>,
}

/// What came of those of one kind.
#[derive(Default, Serialize, JsonSchema)]
struct BulkActionResponse {
    success: Vec<String>,
    errors: Vec<Map<String, Value>>,
}

impl BulkResponse {
    pub fn add(&mut self, kind: Kind, done: Result<Vec<String>, ApiError>) {
        let of_kind = match kind {
            Kind::Create => &mut self.create,
            Kind::Update => &mut self.update,
            Kind::Delete => &mut self.delete,
        };
        let of_kind = of_kind.get_or_insert_default();
        match done {
            Ok(names) => of_kind.success.extend(names),
            Err(error) => {
                let status = error.status().as_u16();
                let told = [("error", error.message().into()), ("status_code", status.into())];
                of_kind
                    .errors
                    .push(told.map(|(name, value): (_, Value)| (name.to_owned(), value)).into_iter().collect());
            }
        }
    }
}

/// The names that are to be made, changed or removed, by what is there; an error where an action forbids what is found.
struct Sorted {
    /// Entities of the action whose names are to be written.
    chosen: Vec<Value>,
    names: Vec<String>,
}

/// `name_of` reads an entity's name; `there` are the names of those that there are.
fn sort(
    action: Action,
    what: &str,
    name_of: impl Fn(&Value) -> Option<String>,
    there: &[String],
) -> Result<Sorted, ApiError> {
    let mut sorted = Sorted { chosen: Vec::new(), names: Vec::new() };
    let (on_existence, on_absence) =
        (action.action_on_existence.unwrap_or_default(), action.action_on_non_existence.unwrap_or_default());
    let (mut clashing, mut absent) = (Vec::new(), Vec::new());
    for entity in action.entities {
        let Some(name) = name_of(&entity) else {
            return Err(ApiError::unprocessable(&["body", "actions", "entities"], "missing", "Field required"));
        };
        let is_there = there.contains(&name);
        let is_wanted = match action.action {
            Kind::Create if is_there => {
                if on_existence == Otherwise::Fail {
                    clashing.push(name.clone());
                }
                on_existence == Otherwise::Overwrite
            }
            Kind::Create => true,
            Kind::Update | Kind::Delete => {
                if !is_there && on_absence == Otherwise::Fail {
                    absent.push(name.clone());
                }
                is_there
            }
        };
        if is_wanted {
            sorted.chosen.push(entity);
            sorted.names.push(name);
        }
    }
    if !clashing.is_empty() {
        let detail = format!("The {what} with these names already exist: {}", clashing.join(", "));
        return Err(ApiError::new(StatusCode::CONFLICT, detail));
    }
    if !absent.is_empty() {
        let detail = format!("The {what} with these names were not found: {}", absent.join(", "));
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    Ok(sorted)
}
