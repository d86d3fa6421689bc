//! The state stores: values by key that a task instance keeps for its later tries, and values by key that tasks keep
//! for an asset.

use super::xcoms;
use crate::model::keys::{InstanceKey, RunKey};
use crate::store::instance_key::{INSTANCE, KEY};
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{execute, exists, fetch_optional, from_row};
use crate::store::{Result, StoreError};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Value;

from_row! {
    /// A stored value with its metadata.
    #[derive(Debug)]
    pub struct StateEntry {
        pub key: String,
        pub value: Value,
        pub updated_at: Timestamp,
        /// When the value expires; always `None` for the value of an asset.
        pub expires_at: Option<Timestamp>,
        /// The task instance whose value this is, or that wrote the value of an asset.
        pub by: InstanceKey => InstanceKey::from_row,
    }
}

// Writers of an asset's values that are no task instances, instead of the id of a task.
pub const API: &str = "";
pub const WATCHER: &str = "watcher";

/// The key that is stored for such a writer. It names no DAG.
pub fn key_of_writer(writer: &str) -> InstanceKey {
    InstanceKey::only(RunKey { dag_id: String::new(), run_id: String::new() }, writer)
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
            Some(Owner::Task(InstanceKey { run, task_id, position })) => {
                conditions.with("s.dag_id = {}", run.dag_id);
                conditions.with("s.run_id = {}", run.run_id);
                conditions.with("s.task_id = {}", task_id);
                conditions.with("s.map_index = {}", position);
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
) -> Result<ListPage<StateEntry>> {
    listing.filter.owner = Some(Owner::Task(key.clone()));
    listing.fetch(client, &Source::new("s.*", "task_state s")).await
}

pub async fn list_of_asset(
    client: &impl GenericClient,
    asset: i64,
    mut listing: Listing<StateField>,
) -> Result<ListPage<StateEntry>> {
    listing.filter.owner = Some(Owner::Asset(asset));
    listing.fetch(client, &Source::new("s.*, NULL::timestamptz AS expires_at", "asset_state s")).await
}

/// Selects instances of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapIndexes {
    /// The instance with the given map index.
    Given,
    All,
}

/// True if the task instance exists or, with all map indexes, any instance of its task.
pub async fn has_instance(client: &impl GenericClient, key: &InstanceKey, map_indexes: MapIndexes) -> Result<bool> {
    let query =
        "SELECT FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND (map_index = $4 OR $5)
                 LIMIT 1";
    let InstanceKey { run, task_id, position } = key;
    let any_index = map_indexes == MapIndexes::All;
    exists(client, query, &[&run.dag_id, &run.run_id, task_id, position, &any_index]).await
}

/// Deletes all values of all instances of a task.
pub async fn delete_of_all_indexes(client: &impl GenericClient, key: &InstanceKey) -> Result<()> {
    let query = "DELETE FROM task_state WHERE dag_id = $1 AND run_id = $2 AND task_id = $3";
    execute(client, query, &[&key.run.dag_id, &key.run.run_id, &key.task_id]).await
}

/// Returns the value as JSON text; `None` if it does not exist or has expired.
pub async fn of_task(client: &impl GenericClient, instance: &InstanceKey, key: &str) -> Result<Option<String>> {
    let query = format!(
        "SELECT value::text FROM task_state WHERE key = $1 AND {} AND (expires_at IS NULL OR expires_at > now())",
        INSTANCE.is("task_state", 2)
    );
    fetch_optional(client, &query, &instance.after(&[&key])).await
}

fn check_key(key: &str) -> Result<()> {
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
) -> Result<()> {
    check_key(key)?;
    client.execute("DELETE FROM task_state WHERE expires_at <= now()", &[]).await?;
    let query = format!(
        "INSERT INTO task_state (key, value, expires_at, {KEY}) VALUES ($1, $2::text::json, $3, {})
         ON CONFLICT ({KEY}, key)
         DO UPDATE SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, updated_at = now()",
        INSTANCE.parameters(4)
    );
    execute(client, &query, &instance.after(&[&key, &value, &expires_at])).await
}

/// Deletes a value of a task instance; all of its values if `key` is `None`.
pub async fn delete_of_task(client: &impl GenericClient, instance: &InstanceKey, key: Option<&str>) -> Result<()> {
    let query =
        format!("DELETE FROM task_state WHERE ($1::text IS NULL OR key = $1) AND {}", INSTANCE.is("task_state", 2));
    execute(client, &query, &instance.after(&[&key])).await
}

/// Returns the value as JSON text; `None` if it does not exist.
pub async fn of_asset(client: &impl GenericClient, asset: i64, key: &str) -> Result<Option<String>> {
    let query = "SELECT value::text FROM asset_state WHERE asset_id = $1 AND key = $2";
    fetch_optional(client, query, &[&asset, &key]).await
}

/// Sets a value, given as JSON text; `writer` is the task instance that writes it.
pub async fn set_of_asset(
    client: &impl GenericClient,
    asset: i64,
    key: &str,
    value: &str,
    writer: &InstanceKey,
) -> Result<()> {
    check_key(key)?;
    let query = format!(
        "INSERT INTO asset_state (asset_id, key, value, {KEY}) VALUES ($1, $2, $3::text::json, {})
         ON CONFLICT (asset_id, key)
         DO UPDATE SET value = EXCLUDED.value, ({KEY}) = ({}), updated_at = now()",
        INSTANCE.parameters(4),
        INSTANCE.of("EXCLUDED")
    );
    execute(client, &query, &writer.after(&[&asset, &key, &value])).await
}

/// Deletes a value of an asset; all of its values if `key` is `None`.
pub async fn delete_of_asset(client: &impl GenericClient, asset: i64, key: Option<&str>) -> Result<()> {
    let query = "DELETE FROM asset_state WHERE asset_id = $1 AND ($2::text IS NULL OR key = $2)";
    execute(client, query, &[&asset, &key]).await
}
