//! Asset watchers: triggers that run while their DAG is active and not paused. Each event of a watcher updates its
//! asset.

use super::assets;
use crate::model::dag::Structure;
use crate::schedule::asset_condition;
use crate::store::Result;
use crate::store::events::{self, Event};
use crate::store::rows::{exists, fetch_all, from_row};
use deadpool_postgres::Transaction;
use leoflow_postgres::GenericClient;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

from_row! {
    /// A trigger that watches for updates of an asset.
    #[derive(Debug, Clone)]
    pub struct Watcher {
        pub id: i64,
        pub asset_id: i64,
        pub asset_name: String,
        pub asset_uri: String,
        pub version_id: i64,
        pub classpath: String,
        pub kwargs: Value,
    }
}

/// Returns the watchers of all assets that a DAG references, as pairs of asset and watcher.
fn declared(structure: &Structure) -> Vec<(&Value, &Value)> {
    let mut references = Vec::new();
    if let Some(condition) = &structure.asset_condition {
        asset_condition::references(condition, &mut references);
    }
    references.extend(structure.tasks.iter().flat_map(|task| task.inlets.iter().chain(&task.outlets)));
    let assets = references.into_iter().filter_map(|reference| reference.get("asset"));
    assets
        .flat_map(|asset| {
            let watchers = asset.get("watchers").and_then(Value::as_array);
            watchers.into_iter().flatten().map(move |watcher| (asset, watcher))
        })
        .collect()
}

/// Saves the watchers of a DAG's current version.
pub async fn save(transaction: &Transaction<'_>, structure: &Structure) -> Result<()> {
    let declared = declared(structure);
    let dag_id = &structure.dag_id;
    let current = "(SELECT current_version_id FROM dag WHERE dag_id = $1)";
    let outdated = format!("DELETE FROM asset_watcher WHERE dag_id = $1 AND version_id <> {current}");
    if transaction.execute(&outdated, &[dag_id]).await? == 0 && declared.is_empty() {
        return Ok(());
    }
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    // If the same version was parsed again, its watchers exist already.
    let existing = format!("SELECT FROM asset_watcher WHERE dag_id = $1 AND version_id = {current} LIMIT 1");
    if exists(transaction, &existing, &[dag_id]).await? {
        return Ok(());
    }
    for (asset, watcher) in declared {
        let query = format!(
            "INSERT INTO asset_watcher (dag_id, version_id, asset_id, name, classpath, kwargs)
             SELECT $1, {current}, a.id, $4, $5, $6 FROM asset a WHERE a.name = $2 AND a.uri = $3"
        );
        let (name, uri) = (text(asset, "name"), text(asset, "uri"));
        let (watcher_name, classpath) = (text(watcher, "name"), text(watcher, "classpath"));
        let kwargs = Json(watcher.get("kwargs").unwrap_or(&Value::Null));
        transaction.execute(&query, &[dag_id, &name, &uri, &watcher_name, &classpath, &kwargs]).await?;
    }
    events::notify(transaction, &Event::Triggers).await
}

/// Notifies the agent that the active or the paused DAGs have changed, if there are watchers.
pub(crate) async fn notify_agent(client: &impl GenericClient) -> Result<()> {
    match exists(client, "SELECT FROM asset_watcher LIMIT 1", &[]).await? {
        true => events::notify(client, &Event::Triggers).await,
        false => Ok(()),
    }
}

/// SQL condition on a watcher `w`: its DAG is active, not paused, and at this version.
const IS_ACTIVE: &str = "EXISTS (SELECT FROM dag d WHERE d.dag_id = w.dag_id AND d.is_active AND NOT d.is_paused
                               AND d.current_version_id = w.version_id)";

/// True if there are watchers to run.
pub async fn is_any(client: &impl GenericClient) -> Result<bool> {
    exists(client, &format!("SELECT FROM asset_watcher w WHERE {IS_ACTIVE} LIMIT 1"), &[]).await
}

/// The watchers to run. If several DAGs have identical watchers, only one of these is returned.
pub async fn all(client: &impl GenericClient) -> Result<Vec<Watcher>> {
    let query = format!(
        "SELECT DISTINCT ON (asset_id, classpath, kwargs::text) w.*, a.name AS asset_name, a.uri AS asset_uri
         FROM asset_watcher w JOIN asset a ON a.id = w.asset_id WHERE {IS_ACTIVE}
         ORDER BY asset_id, classpath, kwargs::text, w.id"
    );
    fetch_all(client, &query, &[]).await
}

/// An event of a watcher.
#[derive(Debug, Clone, Deserialize)]
pub struct WatcherEvent {
    pub asset_id: i64,
    pub payload: Value,
}

/// Adds the asset event for an event of a watcher, in Airflow's form. Does nothing if the asset no longer exists.
pub async fn fire(transaction: &Transaction<'_>, event: &WatcherEvent) -> Result<()> {
    if !exists(transaction, "SELECT FROM asset WHERE id = $1", &[&event.asset_id]).await? {
        return Ok(());
    }
    let extra = json!({"from_trigger": true, "payload": event.payload});
    assets::add_event(transaction, event.asset_id, &extra, None, &[], None).await.map(drop)
}
