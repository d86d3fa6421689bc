//! Asset conditions as Airflow's API shows them: with each asset's id, from which the UI builds a link.

use crate::api::prelude::*;
use leoflow_engine::schedule::asset_condition::{self, Reference};
use leoflow_engine::store::asset::asset_lists;
use std::collections::{BTreeMap, HashMap};

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema; conditions are stored as JSON")]
struct AssetExpressionAssetInfo {
    uri: Option<String>,
    name: Option<String>,
    group: String,
    #[schemars(default)]
    id: Option<i64>,
    #[schemars(default)]
    hidden: bool,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema")]
pub struct AssetExpressionAsset {
    asset: AssetExpressionAssetInfo,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema")]
struct AssetExpressionAliasInfo {
    name: String,
    group: String,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema")]
pub struct AssetExpressionAlias {
    alias: AssetExpressionAliasInfo,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema")]
pub struct AssetExpressionRef {
    asset_ref: BTreeMap<String, String>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema")]
pub struct AssetExpressionAll {
    all: Vec<AssetExpression>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema")]
pub struct AssetExpressionAny {
    any: Vec<AssetExpression>,
}

/// The form of a resolved condition.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only for the JSON schema")]
pub enum AssetExpression {
    Asset(AssetExpressionAsset),
    Alias(AssetExpressionAlias),
    Ref(AssetExpressionRef),
    All(AssetExpressionAll),
    Any(AssetExpressionAny),
}

/// Adds the asset ids to the conditions of several DAGs, in order; `None` for a DAG without a condition.
pub async fn resolve_all(client: &impl GenericClient, conditions: &[Option<&Value>]) -> ApiResult<Vec<Option<Value>>> {
    let mut references = Vec::new();
    for condition in conditions.iter().flatten() {
        asset_condition::references(condition, &mut references);
    }
    let names = references.into_iter().filter_map(|reference| match asset_condition::reference(reference)? {
        Reference::Asset { name, .. } => Some(name),
        _ => None,
    });
    let names: Vec<&str> = names.collect();
    let ids = if names.is_empty() { HashMap::new() } else { asset_lists::ids(client, Some(&names)).await? };
    Ok(conditions.iter().map(|condition| condition.map(|condition| with_ids(condition, &ids))).collect())
}

/// Adds the asset ids to the condition of one DAG.
pub async fn resolve(client: &impl GenericClient, condition: Option<&Value>) -> ApiResult<Option<Value>> {
    Ok(resolve_all(client, &[condition]).await?.pop().flatten())
}

fn with_ids(condition: &Value, ids: &HashMap<(String, String), i64>) -> Value {
    for name in ["all", "any"] {
        if let Some(parts) = condition.get(name).and_then(Value::as_array) {
            return json!({name: parts.iter().map(|part| with_ids(part, ids)).collect::<Vec<_>>()});
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
