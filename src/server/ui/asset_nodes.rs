//! Assets, and references to assets, as nodes of the UI's graphs.

use crate::api::prelude::*;
use leoflow_engine::schedule::asset_condition::{self, Reference};
use leoflow_engine::store::asset::asset_lists;
use std::collections::HashMap;

/// Ids of all assets by name and URI, loaded once because a graph references many.
pub struct AssetNodes(HashMap<(String, String), i64>);

pub struct AssetNode {
    /// The number of an asset; the name or URI of other references.
    pub id: String,
    pub kind: &'static str,
    pub label: String,
}

impl AssetNode {
    /// Returns the id prefixed with the kind.
    pub fn full_id(&self) -> String {
        format!("{}:{}", self.kind, self.id)
    }
}

impl AssetNodes {
    pub async fn load(client: &impl GenericClient) -> ApiResult<Self> {
        Ok(Self(asset_lists::ids(client, None).await?))
    }

    /// Returns the node for a part of a condition, an inlet or an outlet; `None` for an unknown asset.
    pub fn resolve(&self, reference: &Value) -> Option<AssetNode> {
        let reference_node = |kind, name: &str| AssetNode { id: name.to_owned(), kind, label: name.to_owned() };
        Some(match asset_condition::reference(reference)? {
            Reference::Asset { name, uri } => {
                let id = self.0.get(&(name.to_owned(), uri.to_owned()))?.to_string();
                AssetNode { id, kind: "asset", label: name.to_owned() }
            }
            Reference::Alias(name) => reference_node("asset-alias", name),
            Reference::Name(name) => reference_node("asset-name-ref", name),
            Reference::Uri(uri) => reference_node("asset-uri-ref", uri),
        })
    }
}
