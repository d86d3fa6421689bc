//! Connections: how tasks reach other systems. Password and extra are encrypted at rest.

use crate::store::list::field::list_fields;
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::fetch_all;
use crate::store::{OnExisting, ReadFor, Result, StoreError};
use leoflow_base::auth::cipher::Cipher;
use leoflow_postgres::GenericClient;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

/// <https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html>
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub connection_id: String,
    pub conn_type: String,
    pub description: Option<String>,
    pub host: Option<String>,
    pub login: Option<String>,
    pub schema: Option<String>,
    pub port: Option<i32>,
    pub password: Option<String>,
    /// A JSON object as text, as in Airflow.
    pub extra: Option<String>,
}

/// Airflow's limit on the length of a connection id.
const MAX_ID: usize = 200;

/// Binds the encrypted value to its row and field, so that it cannot be decrypted in another place.
fn associated_data(connection_id: &str, field: &str) -> String {
    format!("connection/{connection_id}/{field}")
}

/// Applies the rules of Airflow's API, so that every connection can be exported to Airflow.
fn check(connection: &Connection) -> Result<()> {
    let id = &connection.connection_id;
    let invalid = |problem: &str| Err(StoreError::Invalid(format!("connection {id:?}: {problem}")));
    let is_allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    if id.is_empty() || id.chars().count() > MAX_ID || !id.chars().all(is_allowed) {
        return invalid(&format!("the id must be 1 to {MAX_ID} letters, digits, _ . or -"));
    }
    if connection.conn_type.is_empty() {
        return invalid("conn_type is required, for example postgres or http");
    }
    let texts = [&connection.description, &connection.host, &connection.login, &connection.schema];
    if connection.conn_type.contains('\0') || texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return invalid("values must not contain the NUL character");
    }
    if connection.port.is_some_and(|port| !(0..=65535).contains(&port)) {
        return invalid("port must be a number from 0 to 65535");
    }
    match connection.extra.as_deref().filter(|extra| !extra.is_empty()).map(serde_json::from_str) {
        None | Some(Ok(serde_json::Value::Object(_))) => Ok(()),
        Some(Ok(_)) => invalid("extra must be a JSON object"),
        Some(Err(error)) => invalid(&format!("extra is not valid JSON: {error}")),
    }
}

fn read(row: &Row, cipher: &Cipher) -> Result<Connection> {
    let connection_id: String = row.get("connection_id");
    let decrypt = |column: &str, field: &str| {
        let encrypted: Option<&[u8]> = row.get(column);
        let decrypted =
            encrypted.map(|encrypted| cipher.open(&associated_data(&connection_id, field), encrypted)).transpose();
        decrypted.map_err(|_| StoreError::Sealed { what: WHAT, id: connection_id.clone() })
    };
    let (password, extra) = (decrypt("password_encrypted", "password")?, decrypt("extra_encrypted", "extra")?);
    Ok(Connection {
        conn_type: row.get("conn_type"),
        description: row.get("description"),
        host: row.get("host"),
        login: row.get("login"),
        schema: row.get("schema"),
        port: row.get("port"),
        password,
        extra,
        connection_id,
    })
}

list_fields! {
    /// Fields of connections, for lists.
    ConnectionField, key: [ConnectionId];
    ConnectionId = text("connection_id"),
    ConnType = text("conn_type"),
    Description = text("description"),
    Host = text("host"),
    Port = whole("port"),
    CreatedAt = time("created_at"),
}

encrypted_table!(Connection in connection, id: connection_id, fields: ConnectionField);

const INSERT: &str = "INSERT INTO connection
    (connection_id, conn_type, description, host, login, schema, port, password_encrypted, extra_encrypted)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (connection_id) ";

const REPLACE: &str = "DO UPDATE SET conn_type = EXCLUDED.conn_type, description = EXCLUDED.description,
    host = EXCLUDED.host, login = EXCLUDED.login, schema = EXCLUDED.schema, port = EXCLUDED.port,
    password_encrypted = EXCLUDED.password_encrypted, extra_encrypted = EXCLUDED.extra_encrypted, updated_at = now()";

/// Writes a connection and returns the number of written rows: 0 if the id exists and `on_existing` does not overwrite
/// it.
async fn insert(
    client: &impl GenericClient,
    cipher: &Cipher,
    new: &Connection,
    on_existing: OnExisting,
) -> Result<u64> {
    check(new)?;
    let on_conflict = if on_existing == OnExisting::Overwrite { REPLACE } else { "DO NOTHING" };
    let id = &new.connection_id;
    let seal = |field: &str, secret: &Option<String>| {
        secret.as_ref().map(|text| cipher.seal(&associated_data(id, field), text))
    };
    let (password, extra) = (seal("password", &new.password), seal("extra", &new.extra));
    let written = client
        .execute(
            &format!("{INSERT}{on_conflict}"),
            &[id, &new.conn_type, &new.description, &new.host, &new.login, &new.schema, &new.port, &password, &extra],
        )
        .await?;
    Ok(written)
}

/// Writes a connection of an import. Returns true if it was written, false if it exists and is skipped.
pub async fn import(
    client: &impl GenericClient,
    cipher: &Cipher,
    new: &Connection,
    on_existing: OnExisting,
) -> Result<bool> {
    match on_existing {
        OnExisting::Overwrite => set(client, cipher, new).await.map(|()| true),
        OnExisting::Skip | OnExisting::Fail => on_existing.settle(create(client, cipher, new).await),
    }
}
