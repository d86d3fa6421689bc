//! `/api/v2/connections`, with Airflow's names and shapes. A password goes in and never comes out.

use super::api_error::ApiError;
use super::paging::ListParams;
use super::redact;
use super::state::AppState;
use super::variables::{Mask, bad_body, bad_query};
use crate::engine::connections::{self, Connection};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

fn response(connection: &Connection) -> Value {
    json!({
        "connection_id": connection.connection_id,
        "conn_type": connection.conn_type,
        "description": connection.description,
        "host": connection.host,
        "login": connection.login,
        "schema": connection.schema,
        "port": connection.port,
        "password": connection.password.as_ref().map(|_| redact::HIDDEN),
        "extra": connection.extra.as_ref().map(|extra| redact::text("extra", extra)),
    })
}

pub async fn list(
    State(state): Shared,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let page = params.map_err(bad_query)?.0.page("connection_id")?;
    let client = state.database.get().await?;
    let (found, total) = connections::list(&**client, &state.cipher, &page).await?;
    let connections: Vec<Value> = found.iter().map(response).collect();
    Ok(Json(json!({"connections": connections, "total_entries": total})))
}

pub async fn get(State(state): Shared, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(response(&connections::get(&**client, &state.cipher, &id).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionBody {
    connection_id: String,
    conn_type: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    login: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    port: Option<i32>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    extra: Option<String>,
    /// Airflow's teams; Lite has one user.
    #[serde(default, rename = "team_name")]
    _team_name: Option<String>,
}

impl ConnectionBody {
    fn into_connection(self) -> Connection {
        Connection {
            connection_id: self.connection_id,
            conn_type: self.conn_type,
            description: self.description,
            host: self.host,
            login: self.login,
            schema: self.schema,
            port: self.port,
            password: self.password,
            extra: self.extra,
        }
    }
}

pub async fn create(
    State(state): Shared,
    body: Result<Json<ConnectionBody>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let connection = body.map_err(bad_body)?.0.into_connection();
    let client = state.database.get().await?;
    connections::create(&**client, &state.cipher, &connection).await?;
    Ok((StatusCode::CREATED, Json(response(&connection))))
}

pub async fn patch(
    State(state): Shared,
    Path(id): Path<String>,
    Query(mask): Query<Mask>,
    body: Result<Json<ConnectionBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let new = body.map_err(bad_body)?.0.into_connection();
    if new.connection_id != id {
        let detail = "The connection_id in the request body does not match the URL parameter";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let old = connections::get(&*transaction, &state.cipher, &id).await?;
    let merged = merge(old, new, &mask);
    connections::set(&*transaction, &state.cipher, &merged).await?;
    transaction.commit().await?;
    Ok(Json(response(&merged)))
}

/// A password that comes back as it was shown means "as it was".
fn merge(old: Connection, new: Connection, mask: &Mask) -> Connection {
    let pick = |field: &str, new: Option<String>, old: Option<String>| if mask.allows(field) { new } else { old };
    let new_password =
        if new.password.as_deref() == Some(redact::HIDDEN) { old.password.clone() } else { new.password };
    Connection {
        connection_id: old.connection_id,
        conn_type: if mask.allows("conn_type") { new.conn_type } else { old.conn_type },
        description: pick("description", new.description, old.description),
        host: pick("host", new.host, old.host),
        login: pick("login", new.login, old.login),
        schema: pick("schema", new.schema, old.schema),
        port: if mask.allows("port") { new.port } else { old.port },
        password: pick("password", new_password, old.password),
        extra: pick("extra", new.extra, old.extra),
    }
}

pub async fn delete(State(state): Shared, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let client = state.database.get().await?;
    connections::delete(&**client, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
