//! Variables: Airflow's key-value store. Values are encrypted at rest.

use crate::store::list::field::list_fields;
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{fetch_all, fetch_one};
use crate::store::{OnExisting, ReadFor, Result, StoreError};
use leoflow_base::auth::cipher::Cipher;
use leoflow_postgres::{GenericClient, PgError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokio_postgres::Row;

/// <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/variables.html>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    pub key: String,
    pub value: String,
    pub description: Option<String>,
}

/// Converts a JSON value to the text that Airflow stores: a string as it is, everything else as JSON.
pub fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Maximum number of characters of a key: the length of Airflow's column.
const MAX_KEY: usize = 250;

fn associated_data(key: &str) -> String {
    format!("variable/{key}")
}

fn check(variable: &Variable) -> Result<()> {
    if variable.key.is_empty() || variable.key.chars().count() > MAX_KEY {
        return Err(StoreError::Invalid(format!(
            "{:?}: a variable key must have 1 to {MAX_KEY} characters",
            variable.key
        )));
    }
    if variable.key.contains('\0') || variable.description.as_ref().is_some_and(|text| text.contains('\0')) {
        return Err(StoreError::Invalid("a key or description must not contain the NUL character".to_owned()));
    }
    Ok(())
}

fn read(row: &Row, cipher: &Cipher) -> Result<Variable> {
    let key: String = row.get("key");
    let decrypted = cipher.open(&associated_data(&key), row.get("value_encrypted"));
    let value = decrypted.map_err(|_| StoreError::Sealed { what: WHAT, id: key.clone() })?;
    Ok(Variable { key, value, description: row.get("description") })
}

list_fields! {
    /// Fields of variables, for lists.
    VariableField, key: [Key];
    Key = text("key"),
    Description = text("description"),
    CreatedAt = time("created_at"),
}

encrypted_table!(Variable in variable, id: key, fields: VariableField);

/// The action of `ON CONFLICT` for an existing key.
fn on_conflict(on_existing: OnExisting) -> &'static str {
    match on_existing {
        OnExisting::Overwrite => {
            "UPDATE SET value_encrypted = EXCLUDED.value_encrypted, description = EXCLUDED.description,
             updated_at = now()"
        }
        OnExisting::Skip | OnExisting::Fail => "NOTHING",
    }
}

/// Writes a variable and returns the number of written rows: 0 if the key exists and `on_existing` does not overwrite it.
async fn insert(client: &impl GenericClient, cipher: &Cipher, new: &Variable, on_existing: OnExisting) -> Result<u64> {
    check(new)?;
    let sealed = cipher.seal(&associated_data(&new.key), &new.value);
    let query = format!(
        "INSERT INTO variable (key, value_encrypted, description) VALUES ($1, $2, $3) ON CONFLICT (key) DO {}",
        on_conflict(on_existing)
    );
    Ok(client.execute(&query, &[&new.key, &sealed, &new.description]).await?)
}

/// Writes the entries of an import and returns how many were written. `on_existing` decides about existing keys. The
/// caller must use a transaction, because an error leaves a part of the entries written.
pub async fn import(
    client: &impl GenericClient,
    cipher: &Cipher,
    entries: Vec<Variable>,
    on_existing: OnExisting,
) -> Result<usize> {
    let on_conflict = on_conflict(on_existing);
    let query = format!(
        "INSERT INTO variable (key, value_encrypted, description) SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[])
         ON CONFLICT (key) DO {on_conflict} RETURNING key"
    );
    let mut written = 0;
    for batch in drop_overwritten(entries, on_existing).chunks(BATCH) {
        batch.iter().try_for_each(check)?;
        let sealed: Vec<Vec<u8>> =
            batch.iter().map(|variable| cipher.seal(&associated_data(&variable.key), &variable.value)).collect();
        let keys: Vec<&str> = batch.iter().map(|variable| variable.key.as_str()).collect();
        let descriptions: Vec<Option<&str>> = batch.iter().map(|variable| variable.description.as_deref()).collect();
        let new: Vec<String> = fetch_all(client, &query, &[&keys, &sealed, &descriptions]).await?;
        written += new.len();
        if on_existing == OnExisting::Fail && new.len() < batch.len() {
            let mut new: HashSet<String> = new.into_iter().collect();
            // The key already exists, or it appears twice in the entries.
            let id = keys.iter().find(|key| !new.remove(**key)).copied().unwrap_or_default().to_owned();
            return Err(StoreError::AlreadyExists { what: WHAT, id });
        }
    }
    Ok(written)
}

/// When overwriting, drops all entries of a key except the last, since one statement cannot write a key twice.
fn drop_overwritten(mut entries: Vec<Variable>, on_existing: OnExisting) -> Vec<Variable> {
    if on_existing == OnExisting::Overwrite {
        let last: HashMap<String, usize> =
            entries.iter().enumerate().map(|(index, variable)| (variable.key.clone(), index)).collect();
        let mut index = 0..;
        entries.retain(|variable| index.next() == last.get(&variable.key).copied());
    }
    entries
}

/// Number of variables that are encrypted and written per statement.
const BATCH: usize = 1000;

/// Deletes the variables whose keys have this prefix.
pub async fn delete_prefixed(client: &tokio_postgres::Client, prefix: &str) -> Result<(), PgError> {
    client.execute("DELETE FROM variable WHERE starts_with(key, $1)", &[&prefix]).await?;
    Ok(())
}

/// A page of the keys with this prefix, in order, and their total number.
pub async fn keys(
    client: &impl GenericClient,
    prefix: Option<&str>,
    limit: i64,
    offset: i64,
) -> Result<(Vec<String>, i64)> {
    let prefix_condition = "$1::text IS NULL OR starts_with(key, $1)";
    let count = format!("SELECT count(*) FROM variable WHERE {prefix_condition}");
    let total = fetch_one(client, &count, &[&prefix]).await?;
    let query = format!("SELECT key FROM variable WHERE {prefix_condition} ORDER BY key LIMIT $2 OFFSET $3");
    Ok((fetch_all(client, &query, &[&prefix, &limit, &offset]).await?, total))
}
