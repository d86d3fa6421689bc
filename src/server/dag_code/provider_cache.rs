//! Caches the Airflow providers installed in environments.

use crate::environments::CodeError;
use leoflow_base::sys::mutex::lock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::OnceCell;

/// A provider's description of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Provider {
    pub package_name: String,
    pub name: String,
    pub description: String,
    pub version: String,
    pub documentation_url: Option<String>,
    pub connection_types: Vec<ConnectionType>,
}

/// A connection type for which the provider has a hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionType {
    pub connection_type: String,
    pub hook_class_name: String,
    pub hook_name: Option<String>,
    /// Additional form fields, and labels and visibility of the standard ones, as the provider defines them.
    pub fields: Value,
    pub behaviour: Value,
}

/// Providers by environment hash: an environment never changes, so one query is enough.
#[derive(Default)]
pub struct ProviderCache(Mutex<HashMap<String, Arc<CachedProviders>>>);

/// Providers of one environment; empty until queried.
type CachedProviders = OnceCell<Arc<Vec<Provider>>>;

impl ProviderCache {
    /// Returns the providers of an environment. `query` runs when they are unknown, and continues if the caller
    /// disconnects: a client that timed out and tries again gets the result of the first query. Errors are not cached.
    pub async fn get(
        &self,
        hash: &str,
        query: impl Future<Output = Result<Vec<Provider>, CodeError>> + Send + 'static,
    ) -> Result<Arc<Vec<Provider>>, CodeError> {
        let cell = lock(&self.0).entry(hash.to_owned()).or_default().clone();
        if let Some(providers) = cell.get() {
            return Ok(providers.clone());
        }
        let task = tokio::spawn(async move { cell.get_or_try_init(async || query.await.map(Arc::new)).await.cloned() });
        task.await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_query_survives_its_caller_and_runs_once() {
        let cache = ProviderCache::default();
        let (answer_sender, answer_receiver) = oneshot::channel();
        let query = async move { answer_receiver.await.map_err(|_| CodeError::ShuttingDown) };
        assert!(tokio::time::timeout(Duration::from_millis(10), cache.get("a", query)).await.is_err());
        answer_sender.send(Vec::new()).expect("the query is still running");
        let second_result = cache.get("a", async { Err(CodeError::NoWorkspace) }).await;
        assert!(second_result.is_ok_and(|providers| providers.is_empty()));
    }

    #[tokio::test]
    async fn errors_are_not_cached_and_environments_are_separate() {
        let cache = ProviderCache::default();
        assert!(matches!(cache.get("a", async { Err(CodeError::NoWorkspace) }).await, Err(CodeError::NoWorkspace)));
        assert!(cache.get("a", async { Ok(Vec::new()) }).await.is_ok());
        assert!(matches!(cache.get("b", async { Err(CodeError::NoWorkspace) }).await, Err(CodeError::NoWorkspace)));
    }
}
