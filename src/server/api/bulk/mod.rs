//! Airflow's bulk operations: a list of actions, each applied in its own transaction.

pub mod keyed;
mod schema;

use crate::api::prelude::*;
use crate::state::Core;
use std::marker::PhantomData;

/// The body of a bulk operation on entities of type `T`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct Bulk<T> {
    pub actions: Vec<Action>,
    #[serde(skip)]
    entity_type: PhantomData<fn() -> T>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Create,
    Update,
    Delete,
}

/// How to handle an entity that already exists, or does not exist.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
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
    action_on_existence: Option<OnConflict>,
    #[serde(default)]
    pub action_on_non_existence: Option<OnConflict>,
    #[serde(default)]
    pub update_mask: Option<Vec<String>>,
}

/// A type of entity with bulk operations.
pub trait Entities: Sync {
    /// Plural, for messages.
    const PLURAL: &'static str;
    /// Fields that may hold an entity's name, in order of preference.
    const NAME_FIELDS: &'static [&'static str];
    /// True when creating an existing entity with `overwrite` resets the fields not given, as in Airflow.
    const OVERWRITE_RESETS: bool;

    /// Returns the names in `names` that exist.
    fn existing(
        &self,
        transaction: &Transaction<'_>,
        names: &[String],
    ) -> impl Future<Output = ApiResult<Vec<String>>> + Send;

    /// Validates a body; errors are reported before anything is changed.
    fn check(body: Body) -> ApiResult<()>;

    /// Creates an entity, or replaces all of its fields.
    fn set(&self, transaction: &Transaction<'_>, body: Body) -> impl Future<Output = ApiResult<()>> + Send;

    /// Changes the fields present in the body (limited to the mask when given).
    fn change(
        &self,
        transaction: &Transaction<'_>,
        body: Body,
        mask: &[String],
    ) -> impl Future<Output = ApiResult<()>> + Send;

    fn remove(&self, transaction: &Transaction<'_>, name: &str) -> impl Future<Output = ApiResult<()>> + Send;
}

/// An entity in a request body.
pub type Body = Map<String, Value>;

/// Validates all actions, then applies them one by one.
pub async fn run<E: Entities, T>(core: &Core, entities: &E, body: Bulk<T>) -> JsonResult<BulkResponse> {
    let Bulk { actions, .. } = body;
    actions.iter().try_for_each(check::<E>)?;
    let mut outcome = BulkResponse::default();
    for action in actions {
        let kind = action.action;
        outcome.add(kind, apply(core, entities, action).await);
    }
    Ok(Json(outcome))
}

/// Rejects fields that do not belong to this kind of action.
pub fn check_fields(action: &Action) -> ApiResult<()> {
    let refuse = |kind: &str, message: &str| Err(ApiError::unprocessable(&["body", "actions"], kind, message));
    let has_extra_fields = match action.action {
        Kind::Create => action.update_mask.is_some() || action.action_on_non_existence.is_some(),
        Kind::Update => action.action_on_existence.is_some(),
        Kind::Delete => action.update_mask.is_some() || action.action_on_existence.is_some(),
    };
    if has_extra_fields {
        return refuse("extra_forbidden", "Extra inputs are not permitted");
    }
    if action.action_on_non_existence == Some(OnConflict::Overwrite) {
        return refuse("enum", "Input should be 'fail' or 'skip'");
    }
    Ok(())
}

fn not_an_object() -> ApiError {
    ApiError::unprocessable(&["body", "actions", "entities"], "model_type", "Input should be an object")
}

/// Validates an action before anything is changed.
fn check<E: Entities>(action: &Action) -> ApiResult<()> {
    check_fields(action)?;
    let refuse = |kind: &str, message: &str| Err(ApiError::unprocessable(&["body", "actions"], kind, message));
    for entity in &action.entities {
        match (entity, action.action) {
            (entity, _) if name_in(entity, E::NAME_FIELDS).is_none() => return refuse("missing", "Field required"),
            (Value::Object(body), Kind::Create | Kind::Update) => E::check(body.clone())?,
            (Value::String(_), Kind::Create | Kind::Update) => {
                return refuse("model_type", "Input should be an object");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Applies one action in one transaction. Returns the names of the entities that it created, updated or deleted.
async fn apply<E: Entities>(core: &Core, entities: &E, action: Action) -> ApiResult<Vec<String>> {
    let (kind, mask) = (action.action, action.update_mask.clone().unwrap_or_default());
    let mut client = core.database.get().await?;
    let transaction = client.transaction().await?;
    let requested_names: Vec<String> =
        action.entities.iter().filter_map(|entity| name_in(entity, E::NAME_FIELDS)).collect();
    let existing = entities.existing(&transaction, &requested_names).await?;
    let SelectedEntities { selected, names } =
        select_entities(action, E::PLURAL, |entity| name_in(entity, E::NAME_FIELDS), &existing)?;
    for (entity, name) in selected.into_iter().zip(&names) {
        match (kind, entity) {
            (Kind::Delete, _) => entities.remove(&transaction, name).await?,
            // Fields that are not given keep their values.
            (Kind::Create, Value::Object(body)) if !E::OVERWRITE_RESETS && existing.contains(name) => {
                entities.change(&transaction, body, &[]).await?;
            }
            (Kind::Create, Value::Object(body)) => entities.set(&transaction, body).await?,
            (Kind::Update, Value::Object(body)) => entities.change(&transaction, body, &mask).await?,
            _ => return Err(not_an_object()),
        }
    }
    transaction.commit().await?;
    Ok(names)
}

/// Returns the entity's name: from one of the fields, or the entity itself if it is a string.
fn name_in(entity: &Value, fields: &[&str]) -> Option<String> {
    let named = fields.iter().find_map(|field| entity[*field].as_str());
    named.or_else(|| entity.as_str()).map(str::to_owned)
}

/// The outcome of a bulk request.
#[derive(Default, Serialize, JsonSchema)]
pub struct BulkResponse {
    create: Option<BulkActionResponse>,
    update: Option<BulkActionResponse>,
    delete: Option<BulkActionResponse>,
}

/// The outcome of all actions of one kind.
#[derive(Default, Serialize, JsonSchema)]
struct BulkActionResponse {
    success: Vec<String>,
    errors: Vec<Map<String, Value>>,
}

impl BulkResponse {
    /// Adds an outcome of an action: the names of created, updated or deleted entities, or an error.
    pub fn add(&mut self, kind: Kind, result: ApiResult<Vec<String>>) {
        let response = match kind {
            Kind::Create => &mut self.create,
            Kind::Update => &mut self.update,
            Kind::Delete => &mut self.delete,
        };
        let response = response.get_or_insert_default();
        match result {
            Ok(names) => response.success.extend(names),
            Err(error) => {
                let status = error.status().as_u16();
                let entry = [("error", error.message().into()), ("status_code", status.into())];
                response
                    .errors
                    .push(entry.map(|(name, value): (_, Value)| (name.to_owned(), value)).into_iter().collect());
            }
        }
    }
}

/// The entities that an action creates, updates or deletes, with their names.
struct SelectedEntities {
    /// Parallel to `names`.
    selected: Vec<Value>,
    names: Vec<String>,
}

/// Selects the entities that the action applies to. The action decides whether existing or absent entities are skipped,
/// overwritten or an error. `name_of` reads an entity's name; `existing` lists the names that exist.
fn select_entities(
    action: Action,
    plural: &str,
    name_of: impl Fn(&Value) -> Option<String>,
    existing: &[String],
) -> ApiResult<SelectedEntities> {
    let mut selection = SelectedEntities { selected: Vec::new(), names: Vec::new() };
    let (on_existence, on_absence) =
        (action.action_on_existence.unwrap_or_default(), action.action_on_non_existence.unwrap_or_default());
    let (mut clashing, mut absent) = (Vec::new(), Vec::new());
    for entity in action.entities {
        let Some(name) = name_of(&entity) else {
            return Err(ApiError::unprocessable(&["body", "actions", "entities"], "missing", "Field required"));
        };
        let exists = existing.contains(&name);
        let is_selected = match action.action {
            Kind::Create if exists => {
                if on_existence == OnConflict::Fail {
                    clashing.push(name.clone());
                }
                on_existence == OnConflict::Overwrite
            }
            Kind::Create => true,
            Kind::Update | Kind::Delete => {
                if !exists && on_absence == OnConflict::Fail {
                    absent.push(name.clone());
                }
                exists
            }
        };
        if is_selected {
            selection.selected.push(entity);
            selection.names.push(name);
        }
    }
    if !clashing.is_empty() {
        let detail = format!("The {plural} with these names already exist: {}", clashing.join(", "));
        return Err(ApiError::conflict(detail));
    }
    if !absent.is_empty() {
        let detail = format!("The {plural} with these names were not found: {}", absent.join(", "));
        return Err(ApiError::not_found(detail));
    }
    Ok(selection)
}
