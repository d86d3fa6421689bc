//! What watches assets: triggers of a DAG that are there as long as it is active, each event of which is one of the asset.

use super::StoreError;
use super::assets::{self, Source};
use super::events::{self, Event};
use crate::engine::dag::Structure;
use crate::engine::schedule::asset_condition;
use crate::postgres::GenericClient;
use deadpool_postgres::Transaction;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A trigger of an asset.
#[derive(Debug, Clone)]
pub struct Watcher {
    pub id: i64,
    pub asset_id: i64,
    pub name: String,
    pub version_id: i64,
    pub classpath: String,
    pub kwargs: Value,
}

/// Of a DAG's assets, wherever it names them: the asset and what it says of its watchers.
fn declared(structure: &Structure) -> Vec<(&Value, &Value)> {
    let mut named = Vec::new();
    if let Some(condition) = &structure.asset_condition {
        asset_condition::references(condition, &mut named);
    }
    named.extend(structure.tasks.iter().flat_map(|task| task.inlets.iter().chain(&task.outlets)));
    let assets = named.into_iter().filter_map(|one| one.get("asset"));
    assets
        .flat_map(|asset| {
            let watchers = asset.get("watchers").and_then(Value::as_array);
            watchers.into_iter().flatten().map(move |watcher| (asset, watcher))
        })
        .collect()
}

/// Notes those of a DAG's current version.
pub async fn save(transaction: &Transaction<'_>, structure: &Structure) -> Result<(), StoreError> {
    let declared = declared(structure);
    let dag_id = &structure.dag_id;
    let current = "(SELECT current_version_id FROM dag WHERE dag_id = $1)";
    let gone = format!("DELETE FROM asset_watcher WHERE dag_id = $1 AND version_id <> {current}");
    if transaction.execute(&gone, &[dag_id]).await? == 0 && declared.is_empty() {
        return Ok(());
    }
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Those of this version are there already where its file was read again.
    let there = format!("SELECT FROM asset_watcher WHERE dag_id = $1 AND version_id = {current} LIMIT 1");
    if transaction.query_opt(&there, &[dag_id]).await?.is_some() {
        return Ok(());
    }
    for (asset, watcher) in declared {
        let query = format!(
            "INSERT INTO asset_watcher (dag_id, version_id, asset_id, name, classpath, kwargs)
             SELECT $1, {current}, a.id, $4, $5, $6 FROM asset a WHERE a.name = $2 AND a.uri = $3"
        );
        let (name, uri) = (text(asset, "name"), text(asset, "uri"));
        let (watch, classpath) = (text(watcher, "name"), text(watcher, "classpath"));
        let kwargs = Json(watcher.get("kwargs").unwrap_or(&Value::Null));
        transaction.execute(&query, &[dag_id, &name, &uri, &watch, &classpath, &kwargs]).await?;
    }
    events::notify(transaction, &Event::Triggers).await?;
    Ok(())
}

/// Tells whoever runs them that DAGs are not as active as they were.
pub async fn tell(client: &impl GenericClient) -> Result<(), StoreError> {
    let query = "SELECT EXISTS (SELECT FROM asset_watcher)";
    if client.query_one(query, &[]).await?.get(0) {
        events::notify(client, &Event::Triggers).await?;
    }
    Ok(())
}

/// In SQL: of a watcher `w`, whether its DAG is at work.
const AT_WORK: &str = "EXISTS (SELECT FROM dag d WHERE d.dag_id = w.dag_id AND d.is_active AND NOT d.is_paused
                               AND d.current_version_id = w.version_id)";

pub async fn is_any(client: &impl GenericClient) -> Result<bool, StoreError> {
    let query = format!("SELECT EXISTS (SELECT FROM asset_watcher w WHERE {AT_WORK})");
    Ok(client.query_one(&query, &[]).await?.get(0))
}

/// Those of DAGs that are active and not paused. Where several DAGs name one alike, it is there once.
pub async fn all(client: &impl GenericClient) -> Result<Vec<Watcher>, StoreError> {
    let query = format!(
        "SELECT DISTINCT ON (asset_id, classpath, kwargs::text) * FROM asset_watcher w WHERE {AT_WORK}
         ORDER BY asset_id, classpath, kwargs::text, id"
    );
    let read = |row: &Row| Watcher {
        id: row.get("id"),
        asset_id: row.get("asset_id"),
        name: row.get("name"),
        version_id: row.get("version_id"),
        classpath: row.get("classpath"),
        kwargs: row.get::<_, Json<Value>>("kwargs").0,
    };
    Ok(client.query(&query, &[]).await?.iter().map(read).collect())
}

/// What one has seen.
#[derive(Debug, Clone, Deserialize)]
pub struct WatcherEvent {
    pub asset_id: i64,
    pub payload: Value,
}

/// An event of one, in Airflow's form. Of an asset that is gone it is nothing.
pub async fn fire(transaction: &Transaction<'_>, event: &WatcherEvent) -> Result<(), StoreError> {
    if transaction.query_opt("SELECT FROM asset WHERE id = $1", &[&event.asset_id]).await?.is_none() {
        return Ok(());
    }
    let extra = json!({"from_trigger": true, "payload": event.payload});
    let source = Source { run: None, task_id: None, map_index: -1 };
    assets::add_event(transaction, event.asset_id, &extra, &source, &[], None).await?;
    Ok(())
}
