//! What is known of the providers of Airflow's that environments have.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// As it describes itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Provider {
    pub package_name: String,
    pub name: String,
    pub description: String,
    pub version: String,
    pub documentation_url: Option<String>,
    pub connection_types: Vec<ConnectionType>,
}

/// A type of connections that it has a hook for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionType {
    pub connection_type: String,
    pub hook_class_name: String,
    pub hook_name: Option<String>,
    /// Fields of a form beyond the usual ones, and how the usual ones are called and hidden: as the provider writes them.
    pub fields: Value,
    pub behaviour: Value,
}

/// Those of environments that have been asked, by the hash of each: what is installed in one never changes.
pub type ProviderCache = tokio::sync::Mutex<HashMap<String, Arc<Vec<Provider>>>>;
