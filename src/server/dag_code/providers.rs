//! Airflow providers installed in the projects' environments, and their hooks' connection tests.

use super::provider_cache::Provider;
use super::reach::reach;
use super::{DagCode, answer_of};
use crate::environments::CodeError;
use leoflow_engine::store::dag::environments as store;
use leoflow_engine::store::secret::connections::Connection;
use leoflow_python::Interpreter;
use leoflow_python::environments;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

/// The result of a connection test.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConnectionTest {
    pub status: bool,
    pub message: String,
    /// The provider whose hook tested the connection; `None` if only the host was reached, or not.
    pub provider: Option<String>,
}

impl DagCode {
    /// Lists each provider once, in the newest environment's version, ordered by package name.
    pub async fn list_providers(self: &Arc<Self>) -> Result<Vec<Provider>, CodeError> {
        let mut by_package = BTreeMap::new();
        for (_, providers) in self.providers_by_environment().await? {
            for provider in providers.iter() {
                by_package.entry(provider.package_name.clone()).or_insert_with(|| provider.clone());
            }
        }
        Ok(by_package.into_values().collect())
    }

    /// Tests a saved connection with the hook for its type; if no environment has one, connects to its host and port.
    pub async fn test_connection(self: &Arc<Self>, connection: &Connection) -> Result<ConnectionTest, CodeError> {
        let conn_type = &connection.conn_type;
        for (interpreter, providers) in self.providers_by_environment().await? {
            let has_hook =
                |provider: &&Provider| provider.connection_types.iter().any(|kind| kind.connection_type == *conn_type);
            let Some(provider) = providers.iter().find(has_hook) else { continue };
            let question = json!({"kind": "test_connection", "connection_id": connection.connection_id});
            let result = self.ask_environment(interpreter, question).await;
            // A test that hangs times out like every child.
            let failed =
                |error: CodeError| ConnectionTest { status: false, message: error.to_string(), provider: None };
            let result = result.unwrap_or_else(failed);
            let provider = Some(format!("{} {}", provider.package_name, provider.version));
            return Ok(ConnectionTest { provider, ..result });
        }
        let reached = reach(connection).await;
        let status = reached.is_ok();
        let message = match reached {
            Ok(address) => format!(
                "{address} is reachable. The login was not tested: no project has a provider with a hook for the type \
                 {conn_type}."
            ),
            Err(error) => error.to_string(),
        };
        Ok(ConnectionTest { status, message, provider: None })
    }

    /// Lists the providers of the environments in use, newest environment first. Environments that are missing or
    /// cannot be queried are skipped.
    async fn providers_by_environment(self: &Arc<Self>) -> Result<Vec<(Interpreter, Arc<Vec<Provider>>)>, CodeError> {
        let environments_in_use = {
            let client = self.core.database.get().await?;
            store::all(&*client).await?
        };
        let mut by_environment = Vec::new();
        for environment in environments_in_use.into_iter().filter(|environment| !environment.dags.is_empty()) {
            let Some(folder) = environments::find(&self.core.home, &environment.hash) else { continue };
            let interpreter = self.environments.interpreter.get().await?.in_environment(&folder);
            if !interpreter.has_airflow_sdk {
                continue;
            }
            let query = self.clone().query_providers(interpreter.clone());
            match self.providers.get(&environment.hash, query).await {
                Ok(providers) => by_environment.push((interpreter, providers)),
                Err(reason) => warn!("cannot list the providers of {}: {reason}", folder.display()),
            }
        }
        Ok(by_environment)
    }

    async fn query_providers(self: Arc<Self>, interpreter: Interpreter) -> Result<Vec<Provider>, CodeError> {
        #[derive(Deserialize)]
        struct Answer {
            providers: Vec<Provider>,
        }
        let Answer { providers } = self.ask_environment(interpreter, json!({"kind": "providers"})).await?;
        Ok(providers)
    }

    /// Runs `question` in a child process with an environment's interpreter, independent of any DAG.
    async fn ask_environment<T: DeserializeOwned>(
        &self,
        interpreter: Interpreter,
        question: Value,
    ) -> Result<T, CodeError> {
        let questions = self.questions()?;
        let options = json!({
            "path": "", "roots": [], "work_in": [questions.workspace()], "sources": {}, "settings": null, "dag_id": "",
            "question": question, "spec": null, "socket": self.core.own_socket(),
        });
        answer_of(questions.ask(interpreter, options).await?)
    }
}
