//! What a DAG waits for, as Airflow shows it: each asset of a condition with its id, by which the UI leads to it.

use crate::engine::schedule::asset_condition::{self, Reference};
use crate::engine::store::asset_lists;
use crate::postgres::GenericClient;
use crate::server::api_error::ApiError;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Of several DAGs, in their order; a DAG that waits for no asset has none.
pub async fn several(
    client: &impl GenericClient,
    conditions: &[Option<&Value>],
) -> Result<Vec<Option<Value>>, ApiError> {
    let mut named = Vec::new();
    for condition in conditions.iter().flatten() {
        asset_condition::references(condition, &mut named);
    }
    let names = named.into_iter().filter_map(|one| match asset_condition::reference(one)? {
        Reference::Asset { name, .. } => Some(name),
        _ => None,
    });
    let names: Vec<&str> = names.collect();
    let ids = if names.is_empty() { HashMap::new() } else { asset_lists::ids_of(client, &names).await? };
    Ok(conditions.iter().map(|condition| condition.map(|condition| shown(condition, &ids))).collect())
}

/// Of one.
pub async fn one(client: &impl GenericClient, condition: Option<&Value>) -> Result<Option<Value>, ApiError> {
    Ok(several(client, &[condition]).await?.pop().flatten())
}

fn shown(condition: &Value, ids: &HashMap<(String, String), i64>) -> Value {
    for name in ["all", "any"] {
        if let Some(parts) = condition.get(name).and_then(Value::as_array) {
            return json!({name: parts.iter().map(|part| shown(part, ids)).collect::<Vec<_>>()});
        }
    }
    match asset_condition::reference(condition) {
        Some(Reference::Asset { name, uri }) => {
            let id = ids.get(&(name.to_owned(), uri.to_owned()));
            json!({"asset": {"id": id, "name": name, "uri": uri, "group": condition["asset"]["group"]}})
        }
        _ => condition.clone(),
    }
}
