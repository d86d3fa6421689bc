//! The state stores: values by key that a task instance keeps for its later tries, and values by key that tasks keep
//! for an asset.

use super::xcoms;
use crate::model::keys::InstanceKey;
use crate::store::StoreError;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use crate::store::rows;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A stored value with its metadata.
#[derive(Debug)]
pub struct StateEntry {
    pub key: String,
    pub value: Value,
    pub updated_at: Timestamp,
    /// When the value expires; always `None` for the value of an asset.
    pub expires_at: Option<Timestamp>,
    /// The task instance that wrote the value of an asset; `None` for the value of a task.
    pub by: Option<InstanceKey>,
}

list_fields! {
    /// Fields of stored values, for lists.
    StateField, key: [Key], filter: StateFilter;
    Key = text("s.key"),
}

/// Filters of the values of one owner.
#[derive(Debug, Default)]
pub struct StateFilter {
    key: Option<String>,
    owner: Option<Owner>,
}

impl StateFilter {
    pub fn of_key(key: &str) -> Self {
        Self { key: Some(key.to_owned()), owner: None }
    }
}

/// The owner of stored values.
#[derive(Debug)]
enum Owner {
    Task(InstanceKey),
    Asset(i64),
}

impl Filter for StateFilter {
    fn add_to(self, conditions: &mut Conditions) {
        conditions.maybe("s.key = {}", self.key);
        match self.owner {
            Some(Owner::Task(InstanceKey { run, task_id, map_index })) => {
                conditions.with("s.dag_id = {}", run.dag_id);
                conditions.with("s.run_id = {}", run.run_id);
                conditions.with("s.task_id = {}", task_id);
                conditions.with("s.map_index = {}", map_index);
                conditions.add("s.expires_at IS NULL OR s.expires_at > now()", Vec::new());
            }
            Some(Owner::Asset(id)) => conditions.with("s.asset_id = {}", id),
            None => {}
        }
    }
}

/// The values of one task instance that have not expired.
pub async fn list_of_task(
    client: &impl GenericClient,
    key: &InstanceKey,
    mut listing: Listing<StateField>,
) -> Result<ListPage<StateEntry>, StoreError> {
    listing.filter.owner = Some(Owner::Task(key.clone()));
    let read = |row: &Row| {
        let Json(value) = row.get("value");
        StateEntry {
            key: row.get("key"),
            value,
            updated_at: row.get("updated_at"),
            expires_at: row.get("expires_at"),
            by: None,
        }
    };
    listing.fetch(client, &Source::new("s.*", "task_state s"), read).await
}

pub async fn list_of_asset(
    client: &impl GenericClient,
    asset: i64,
    mut listing: Listing<StateField>,
) -> Result<ListPage<StateEntry>, StoreError> {
    listing.filter.owner = Some(Owner::Asset(asset));
    let read = |row: &Row| {
        let Json(value) = row.get("value");
        let by = rows::instance_key(row);
        StateEntry { key: row.get("key"), value, updated_at: row.get("updated_at"), expires_at: None, by: Some(by) }
    };
    listing.fetch(client, &Source::new("s.*", "asset_state s"), read).await
}

/// Selects instances of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapIndexes {
    /// The instance with the given map index.
    Given,
    All,
}

/// True if the task instance exists or, with all map indexes, any instance of its task.
pub async fn has_instance(
    client: &impl GenericClient,
    key: &InstanceKey,
    map_indexes: MapIndexes,
) -> Result<bool, StoreError> {
    let query =
        "SELECT FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND (map_index = $4 OR $5)
                 LIMIT 1";
    let InstanceKey { run, task_id, map_index } = key;
    let any_index = map_indexes == MapIndexes::All;
    Ok(client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, &any_index]).await?.is_some())
}

/// Deletes all values of all instances of a task.
pub async fn delete_of_all_indexes(client: &impl GenericClient, key: &InstanceKey) -> Result<(), StoreError> {
    let query = "DELETE FROM task_state WHERE dag_id = $1 AND run_id = $2 AND task_id = $3";
    client.execute(query, &[&key.run.dag_id, &key.run.run_id, &key.task_id]).await?;
    Ok(())
}

/// Returns the value as JSON text; `None` if it does not exist or has expired.
pub async fn of_task(
    client: &impl GenericClient,
    instance: &InstanceKey,
    key: &str,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT value::text FROM task_state
                 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = $5
                   AND (expires_at IS NULL OR expires_at > now())";
    let InstanceKey { run, task_id, map_index } = instance;
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key]).await?;
    Ok(row.map(|row| row.get(0)))
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if !xcoms::is_key(key) {
        return Err(StoreError::Invalid(format!("a key must have 1 to 512 characters without NUL, got {key:?}")));
    }
    Ok(())
}

/// Sets a value, given as JSON text, and deletes the expired values of all tasks.
pub async fn set_of_task(
    client: &impl GenericClient,
    instance: &InstanceKey,
    key: &str,
    value: &str,
    expires_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    check_key(key)?;
    client.execute("DELETE FROM task_state WHERE expires_at <= now()", &[]).await?;
    let query = "INSERT INTO task_state (dag_id, run_id, task_id, map_index, key, value, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6::text::json, $7)
                 ON CONFLICT (dag_id, run_id, task_id, map_index, key)
                 DO UPDATE SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, updated_at = now()";
    let InstanceKey { run, task_id, map_index } = instance;
    client.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key, &value, &expires_at]).await?;
    Ok(())
}

/// Deletes a value of a task instance; all of its values if `key` is `None`.
pub async fn delete_of_task(
    client: &impl GenericClient,
    instance: &InstanceKey,
    key: Option<&str>,
) -> Result<(), StoreError> {
    let query = "DELETE FROM task_state WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4
                 AND ($5::text IS NULL OR key = $5)";
    let InstanceKey { run, task_id, map_index } = instance;
    client.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key]).await?;
    Ok(())
}

/// Returns the value as JSON text; `None` if it does not exist.
pub async fn of_asset(client: &impl GenericClient, asset: i64, key: &str) -> Result<Option<String>, StoreError> {
    let query = "SELECT value::text FROM asset_state WHERE asset_id = $1 AND key = $2";
    Ok(client.query_opt(query, &[&asset, &key]).await?.map(|row| row.get(0)))
}

/// Sets a value, given as JSON text; `writer` is the task instance that writes it.
pub async fn set_of_asset(
    client: &impl GenericClient,
    asset: i64,
    key: &str,
    value: &str,
    writer: &InstanceKey,
) -> Result<(), StoreError> {
    check_key(key)?;
    let query = "INSERT INTO asset_state (asset_id, key, value, dag_id, run_id, task_id, map_index)
                 VALUES ($1, $2, $3::text::json, $4, $5, $6, $7)
                 ON CONFLICT (asset_id, key)
                 DO UPDATE SET value = EXCLUDED.value, dag_id = EXCLUDED.dag_id, run_id = EXCLUDED.run_id,
                               task_id = EXCLUDED.task_id, map_index = EXCLUDED.map_index, updated_at = now()";
    let InstanceKey { run, task_id, map_index } = writer;
    client.execute(query, &[&asset, &key, &value, &run.dag_id, &run.run_id, task_id, map_index]).await?;
    Ok(())
}

/// Deletes a value of an asset; all of its values if `key` is `None`.
pub async fn delete_of_asset(client: &impl GenericClient, asset: i64, key: Option<&str>) -> Result<(), StoreError> {
    let query = "DELETE FROM asset_state WHERE asset_id = $1 AND ($2::text IS NULL OR key = $2)";
    client.execute(query, &[&asset, &key]).await?;
    Ok(())
}
