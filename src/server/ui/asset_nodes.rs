//! What assets, and what names them, are in the UI's graphs.

use crate::engine::schedule::asset_condition::{self, Reference};
use crate::engine::store::asset_lists;
use crate::postgres::GenericClient;
use crate::server::api_error::ApiError;
use serde_json::Value;
use std::collections::HashMap;

/// The ids of all assets, by name and URI: a graph names many of them.
pub struct AssetNodes(HashMap<(String, String), i64>);

pub struct AssetNode {
    /// An asset's number; of everything else what it is named by.
    pub id: String,
    pub kind: &'static str,
    pub label: String,
}

impl AssetNode {
    /// Told apart from nodes of other kinds.
    pub fn full_id(&self) -> String {
        format!("{}:{}", self.kind, self.id)
    }
}

impl AssetNodes {
    pub async fn load(client: &impl GenericClient) -> Result<Self, ApiError> {
        Ok(Self(asset_lists::ids(client).await?))
    }

    /// Of a part of a condition, an inlet or an outlet; `None` for an asset that is not known.
    pub fn named(&self, one: &Value) -> Option<AssetNode> {
        let plain = |kind, name: &str| AssetNode { id: name.to_owned(), kind, label: name.to_owned() };
        Some(match asset_condition::reference(one)? {
            Reference::Asset { name, uri } => {
                let id = self.0.get(&(name.to_owned(), uri.to_owned()))?.to_string();
                AssetNode { id, kind: "asset", label: name.to_owned() }
            }
            Reference::Alias(name) => plain("asset-alias", name),
            Reference::Name(name) => plain("asset-name-ref", name),
            Reference::Uri(uri) => plain("asset-uri-ref", uri),
        })
    }
}
