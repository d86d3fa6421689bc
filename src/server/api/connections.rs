//! `/api/v2/connections`, with Airflow's names and shapes. A password goes in and never comes out.

use super::redact;
use crate::auth::cipher::Cipher;
use crate::auth::masking;
use crate::engine::store::ReadFor;
use crate::engine::store::connections::{self, Connection};
use crate::engine::store::listing::Column;
use crate::server::api_error::ApiError;
use crate::server::body::bad_body;
use crate::server::bulk::{self, Entities};
use crate::server::listing::{Fields, NOTHING, page};
use crate::server::request::{Changes, Id, Params};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use deadpool_postgres::Transaction;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// What may be ordered by. Airflow's `id` is the order of creation.
const FIELDS: Fields = Fields {
    order: &[
        ("connection_id", Column::text("connection_id")),
        ("conn_id", Column::text("connection_id")),
        ("conn_type", Column::text("conn_type")),
        ("description", Column::text("description")),
        ("host", Column::text("host")),
        ("port", Column::whole("port")),
        ("id", Column::time("created_at")),
    ],
    patterns: &[("connection_id", "connection_id")],
    ..NOTHING
};

fn response(connection: &Connection) -> Value {
    json!({
        "connection_id": connection.connection_id,
        "conn_type": connection.conn_type,
        "description": connection.description,
        "host": connection.host,
        "login": connection.login,
        "schema": connection.schema,
        "port": connection.port,
        "password": connection.password.as_ref().map(|_| masking::HIDDEN),
        "extra": connection.extra.as_ref().map(|extra| redact::text("extra", extra)),
        "team_name": null,
    })
}

pub async fn list(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&FIELDS)?;
    let client = state.database.get().await?;
    let found = connections::list(&*client, &state.cipher, listing).await?;
    Ok(Json(page("connections", found.rows.iter().map(response).collect(), found.total)))
}

pub async fn get(State(state): Shared, Id(id): Id) -> Result<Json<Value>, ApiError> {
    if id == ENQUEUED {
        return Err(test_is_disabled());
    }
    let client = state.database.get().await?;
    Ok(Json(response(&connections::get(&*client, &state.cipher, &id, ReadFor::Reading).await?)))
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

pub async fn create(State(state): Shared, body: Body<ConnectionBody>) -> Result<(StatusCode, Json<Value>), ApiError> {
    let connection = body.map_err(bad_body)?.0.into_connection();
    let client = state.database.get().await?;
    connections::create(&*client, &state.cipher, &connection).await?;
    Ok((StatusCode::CREATED, Json(response(&connection))))
}

/// Changes the fields that are in the body (and in `update_mask`, where there is one).
pub async fn patch(
    State(state): Shared,
    Id(id): Id,
    params: Params,
    body: Body<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let changes = params.changes::<ConnectionBody>(body.map_err(bad_body)?.0)?;
    if changes.values.connection_id != id {
        let detail = "The connection_id in the request body does not match the URL parameter";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let merged = change(&transaction, &state.cipher, &id, &changes).await?;
    transaction.commit().await?;
    Ok(Json(response(&merged)))
}

/// What is not among the changes stays as it is.
async fn change(
    transaction: &Transaction<'_>,
    cipher: &Cipher,
    id: &str,
    changes: &Changes<ConnectionBody>,
) -> Result<Connection, ApiError> {
    let old = connections::get(transaction, cipher, id, ReadFor::Update).await?;
    let merged = merge(old, changes);
    connections::set(transaction, cipher, &merged).await?;
    Ok(merged)
}

/// A secret that comes back as it was shown means "as it was".
fn merge(old: Connection, changes: &Changes<ConnectionBody>) -> Connection {
    let new = &changes.values;
    let secret = |new: &Option<String>, old: &Option<String>| {
        new.as_ref().map(|new| old.as_ref().map_or_else(|| new.clone(), |old| redact::restore(new, old)))
    };
    let (password, extra) = (secret(&new.password, &old.password), secret(&new.extra, &old.extra));
    Connection {
        connection_id: old.connection_id,
        conn_type: changes.pick("conn_type", new.conn_type.clone(), old.conn_type),
        description: changes.pick("description", new.description.clone(), old.description),
        host: changes.pick("host", new.host.clone(), old.host),
        login: changes.pick("login", new.login.clone(), old.login),
        schema: changes.pick("schema", new.schema.clone(), old.schema),
        port: changes.pick("port", new.port, old.port),
        password: changes.pick("password", password, old.password),
        extra: changes.pick("extra", extra, old.extra),
    }
}

pub async fn delete(State(state): Shared, Id(id): Id) -> Result<StatusCode, ApiError> {
    let client = state.database.get().await?;
    connections::delete(&*client, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is posted to one connection is nothing; these words are operations. As on Airflow a test is forbidden unless
/// somebody allows it: whoever may ask for it makes this machine connect to any other.
pub async fn post_word(Id(word): Id) -> Result<StatusCode, ApiError> {
    match word.as_str() {
        "test" | ENQUEUED => Err(test_is_disabled()),
        // Airflow's examples name services that are not here: there is none to make.
        "defaults" => Ok(StatusCode::NO_CONTENT),
        _ => Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")),
    }
}

/// Airflow's word for tests that are asked for and looked at later; no connection of that name is shown.
const ENQUEUED: &str = "enqueue-test";

fn test_is_disabled() -> ApiError {
    let detail = "Testing connections is disabled in Airflow configuration. Contact your deployment admin to enable it. \
                  `leoflow connections test` tests one that is there.";
    ApiError::new(StatusCode::FORBIDDEN, detail)
}

struct Connections<'a>(&'a Cipher);

impl Entities for Connections<'_> {
    const WHAT: &'static str = "connections";
    const NAMES: &'static [&'static str] = &["connection_id"];
    const IS_REPLACED: bool = false;

    async fn there(&self, transaction: &Transaction<'_>, names: &[String]) -> Result<Vec<String>, ApiError> {
        Ok(connections::there(transaction, names).await?)
    }

    fn check(body: bulk::Body) -> Result<(), ApiError> {
        Changes::<ConnectionBody>::of(body, &[]).map(drop)
    }

    async fn set(&self, transaction: &Transaction<'_>, body: bulk::Body) -> Result<(), ApiError> {
        let new: ConnectionBody = Changes::of(body, &[])?.values;
        Ok(connections::set(transaction, self.0, &new.into_connection()).await?)
    }

    async fn change(&self, transaction: &Transaction<'_>, body: bulk::Body, mask: &[String]) -> Result<(), ApiError> {
        let changes = Changes::<ConnectionBody>::of(body, mask)?;
        change(transaction, self.0, &changes.values.connection_id, &changes).await.map(drop)
    }

    async fn remove(&self, transaction: &Transaction<'_>, name: &str) -> Result<(), ApiError> {
        Ok(connections::delete(transaction, name).await?)
    }
}

pub async fn bulk(State(state): Shared, body: Body<Value>) -> Result<Json<Value>, ApiError> {
    bulk::run(&state, &Connections(&state.cipher), body).await
}
