//! What is known of the providers of Airflow's that environments have.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

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

/// Those of environments, by the hash of each: what is installed in one never changes, so that one answer is enough.
#[derive(Default)]
pub struct ProviderCache(Mutex<HashMap<String, Arc<Answer>>>);

/// Of one environment: there is none until it has been asked.
type Answer = OnceCell<Arc<Vec<Provider>>>;

impl ProviderCache {
    /// Those of one environment. `ask` is called where nobody has before, and goes on when whoever wants to know leaves:
    /// a client that has waited long enough and tries again finds what the first question has begun. An error is not
    /// kept.
    pub async fn of(
        &self,
        hash: &str,
        ask: impl Future<Output = Result<Vec<Provider>, String>> + Send + 'static,
    ) -> Result<Arc<Vec<Provider>>, String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(hash.to_owned()).or_default().clone();
        if let Some(providers) = known.get() {
            return Ok(providers.clone());
        }
        let asking =
            tokio::spawn(async move { known.get_or_try_init(async || ask.await.map(Arc::new)).await.cloned() });
        asking.await.map_err(|error| error.to_string())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_question_goes_on_without_whoever_asked_and_is_asked_once() {
        let cache = ProviderCache::default();
        let (answer, answered) = oneshot::channel();
        let ask = async move { answered.await.map_err(|_| "nobody waits".to_owned()) };
        assert!(tokio::time::timeout(Duration::from_millis(10), cache.of("a", ask)).await.is_err());
        answer.send(Vec::new()).expect("it still waits for the answer");
        let again = cache.of("a", async { Err("asked again".to_owned()) }).await;
        assert!(again.is_ok_and(|found| found.is_empty()));
    }

    #[tokio::test]
    async fn a_failed_question_is_asked_again_and_each_environment_has_its_own() {
        let cache = ProviderCache::default();
        assert_eq!(cache.of("a", async { Err("busy".to_owned()) }).await.err().as_deref(), Some("busy"));
        assert!(cache.of("a", async { Ok(Vec::new()) }).await.is_ok());
        assert_eq!(cache.of("b", async { Err("busy".to_owned()) }).await.err().as_deref(), Some("busy"));
    }
}
