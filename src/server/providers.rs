//! The providers of Airflow's that the environments of projects have, and what their hooks say of a connection.

use super::provider_cache::Provider;
use super::state::AppState;
use crate::engine::store::environments as store;
use crate::python::Interpreter;
use crate::python::environments;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

/// What a provider's hook has said.
#[derive(Debug, Deserialize)]
pub struct Tested {
    pub status: bool,
    pub message: String,
    #[serde(default)]
    pub provider: String,
}

/// Of the environments that DAGs run with now, the newest environment first. One that is not there or does not answer is
/// left out. The error is for people.
async fn all(state: &Arc<AppState>) -> Result<Vec<(Interpreter, Arc<Vec<Provider>>)>, String> {
    let used = {
        let client = state.database.get().await.map_err(|error| error.message())?;
        store::all(&*client).await.map_err(|error| error.to_string())?
    };
    let mut found = Vec::new();
    for one in used.into_iter().filter(|one| !one.dags.is_empty()) {
        let Some(folder) = environments::find(&state.home, &one.hash) else { continue };
        let interpreter = state.interpreter.get().await?.in_environment(&folder);
        if !interpreter.is_airflows {
            continue;
        }
        let asked = asked(state.clone(), interpreter.clone());
        match state.providers.of(&one.hash, asked).await {
            Ok(providers) => found.push((interpreter, providers)),
            Err(reason) => warn!("the providers of {} are not known: {reason}", folder.display()),
        }
    }
    Ok(found)
}

async fn asked(state: Arc<AppState>, interpreter: Interpreter) -> Result<Vec<Provider>, String> {
    #[derive(Deserialize)]
    struct Answer {
        providers: Vec<Provider>,
    }
    let answer = ask(&state, interpreter, json!({"kind": "providers"})).await?;
    let Answer { providers } = serde_json::from_value(answer).map_err(|error| error.to_string())?;
    Ok(providers)
}

/// Each once, in the version that the newest environment has, by the names of their packages.
pub async fn list(state: &Arc<AppState>) -> Result<Vec<Provider>, String> {
    let mut found = BTreeMap::new();
    for (_, providers) in all(state).await? {
        for one in providers.iter() {
            found.entry(one.package_name.clone()).or_insert_with(|| one.clone());
        }
    }
    Ok(found.into_values().collect())
}

/// Has the hook tried that is for the type; `None` where no environment has one.
pub async fn test_connection(
    state: &Arc<AppState>,
    connection_id: &str,
    conn_type: &str,
) -> Result<Option<Tested>, String> {
    for (interpreter, providers) in all(state).await? {
        let has_hook = |one: &&Provider| one.connection_types.iter().any(|kind| kind.connection_type == conn_type);
        let Some(provider) = providers.iter().find(has_hook) else { continue };
        let question = json!({"kind": "test_connection", "connection_id": connection_id});
        let tested = ask(state, interpreter, question)
            .await
            .and_then(|answer| serde_json::from_value(answer).map_err(|error| error.to_string()));
        // One that waits for a host that does not answer is ended, like every child.
        let tested = tested.unwrap_or_else(|message| Tested { status: false, message, provider: String::new() });
        return Ok(Some(Tested { provider: format!("{} {}", provider.package_name, provider.version), ..tested }));
    }
    Ok(None)
}

/// Asks code of an environment that is of no DAG.
async fn ask(state: &Arc<AppState>, interpreter: Interpreter, question: Value) -> Result<Value, String> {
    let questions = state.questions.get().ok_or("there is no workspace")?;
    let options = json!({
        "path": "", "roots": [], "work_in": [questions.workspace()], "sources": {}, "settings": null, "dag_id": "",
        "question": question, "spec": null, "socket": state.own_socket(),
    });
    let left = questions.ask(interpreter, options).await?;
    left.answer()
}
