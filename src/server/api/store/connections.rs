//! `/api/v2/connections`, with Airflow's names and shapes. Passwords can be written but are never returned.

use crate::api::bulk::{self, Bulk, BulkResponse, Entities};
use crate::api::prelude::*;
use crate::api::redact;
use crate::dag_code::providers::ConnectionTest;
use crate::http::changes::Changes;
use crate::http::openapi::answers::Accepted;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::auth::masking;
use leoflow_engine::store::secret::connections::{self, Connection, ConnectionField};

/// Fields to order and filter by. Airflow's `id` is the order of creation.
const FIELDS: Fields<ConnectionField> = Fields {
    order: &[
        ("connection_id", ConnectionField::ConnectionId),
        ("conn_id", ConnectionField::ConnectionId),
        ("conn_type", ConnectionField::ConnType),
        ("description", ConnectionField::Description),
        ("host", ConnectionField::Host),
        ("port", ConnectionField::Port),
        ("id", ConnectionField::CreatedAt),
    ],
    patterns: &[("connection_id", ConnectionField::ConnectionId)],
    ..Fields::NONE
};

query! { pub ConnectionsQuery(FIELDS) }

view! {
    pub struct ConnectionResponse;
    fn response(connection: Connection) {
        connection_id: String,
        conn_type: String,
        description: Option<String>,
        host: Option<String>,
        login: Option<String>,
        schema: Option<String>,
        port: Option<i32>,
        password: Option<&'static str> = connection.password.map(|_| masking::HIDDEN),
        extra: Option<String> = connection.extra.map(|extra| redact::text("extra", &extra)),
        team_name: Option<String> = None,
    }
}

collection! { ConnectionCollectionResponse { connections: ConnectionResponse } }

pub async fn list(
    State(state): Shared,
    params: QueryParams<ConnectionsQuery>,
) -> JsonResult<ConnectionCollectionResponse> {
    let listing = params.listing(&FIELDS)?;
    let client = state.core.database.get().await?;
    let page = connections::list(&*client, &state.core.cipher, listing).await?;
    Ok(Json(page.map(response).into()))
}

pub async fn get(State(state): Shared, Id(id): Id, headers: HeaderMap) -> JsonResult<ConnectionResponse> {
    if id == ENQUEUE_WORD {
        return Err(unknown_test(&headers));
    }
    let client = state.core.database.get().await?;
    Ok(Json(response(connections::get(&*client, &state.core.cipher, &id, ReadFor::Reading).await?)))
}

/// Defines a request body with the fields of a connection and others.
macro_rules! connection_body {
    ($(#[$attribute:meta])* $name:ident { $($(#[$field_attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            #[schemars(length(max = 200), regex(pattern = r"^[\w.-]+$"))]
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
            $($(#[$field_attribute])* $field: $type,)*
        }
    };
}

connection_body! {
    ConnectionBody {
        /// Airflow's teams; ignored, since Lite has one user.
        #[serde(default, rename = "team_name")]
        #[schemars(length(max = 50))]
        _team_name: Option<String>,
    }
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

pub async fn create(State(state): Shared, Body(body): Body<ConnectionBody>) -> ApiResult<Created<ConnectionResponse>> {
    let connection = body.into_connection();
    let client = state.core.database.get().await?;
    connections::create(&*client, &state.core.cipher, &connection).await?;
    Ok(Created(response(connection)))
}

/// Changes the fields present in the body (limited to `update_mask` when given).
pub async fn patch(
    State(state): Shared,
    Id(id): Id,
    changes: Changes<ConnectionBody>,
) -> JsonResult<ConnectionResponse> {
    if changes.values.connection_id != id {
        let detail = "The connection_id in the request body does not match the URL parameter";
        return Err(ApiError::bad_request(detail));
    }
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let merged = change(&transaction, &state.core.cipher, &id, &changes).await?;
    transaction.commit().await?;
    Ok(Json(response(merged)))
}

/// Applies the changes; other fields keep their values.
async fn change(
    transaction: &Transaction<'_>,
    cipher: &Cipher,
    id: &str,
    changes: &Changes<ConnectionBody>,
) -> ApiResult<Connection> {
    let old = connections::get(transaction, cipher, id, ReadFor::Update).await?;
    let merged = merge(old, changes);
    connections::set(transaction, cipher, &merged).await?;
    Ok(merged)
}

/// Returns the connection with the changed fields. A secret that is sent back in its masked form keeps its stored
/// value.
fn merge(old: Connection, changes: &Changes<ConnectionBody>) -> Connection {
    let new = &changes.values;
    let restore_secret = |new: &Option<String>, old: &Option<String>| {
        new.as_ref().map(|new| old.as_ref().map_or_else(|| new.clone(), |old| redact::restore(new, old)))
    };
    let (password, extra) = (restore_secret(&new.password, &old.password), restore_secret(&new.extra, &old.extra));
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

pub async fn delete(Datastore(client): Datastore, Id(id): Id) -> ApiResult<NoContent> {
    connections::delete(&*client, &id).await?;
    Ok(NoContent)
}

/// Handles `POST /connections/WORD`: connections accept no POST by id, and these words are operations.
pub async fn post_by_word(State(state): Shared, Id(word): Id, request: Request) -> Response {
    match word.as_str() {
        "test" => test.call(request, state).await,
        ENQUEUE_WORD => enqueue_test.call(request, state).await,
        "defaults" => create_defaults().await.into_response(),
        _ => ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into_response(),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct ConnectionTestResponse {
    status: bool,
    message: String,
}

/// Tests a saved connection. 403 for other values: a hook reads the connection by its id.
pub async fn test(State(state): Shared, Body(body): Body<ConnectionBody>) -> JsonResult<ConnectionTestResponse> {
    let client = state.core.database.get().await?;
    let saved = connections::get(&*client, &state.core.cipher, &body.connection_id, ReadFor::Reading).await;
    drop(client);
    let saved = match saved {
        Err(StoreError::NotFound { .. }) => return Err(test_is_refused()),
        saved => saved?,
    };
    if !is_saved(&body, &saved) {
        return Err(test_is_refused());
    }
    Ok(Json(match state.dag_code.test_connection(&saved).await {
        Ok(ConnectionTest { status, message, .. }) => ConnectionTestResponse { status, message },
        Err(error) => ConnectionTestResponse { status: false, message: error.to_string() },
    }))
}

/// True if the body has the saved values, with its secrets in plain text or masked. The UI sends empty texts, `{}` and
/// port 0 for missing values.
fn is_saved(body: &ConnectionBody, saved: &Connection) -> bool {
    fn text(value: Option<&str>) -> &str {
        value.filter(|text| *text != "{}").unwrap_or_default()
    }
    let is_equal = |sent: &Option<String>, saved: Option<&str>| text(sent.as_deref()) == text(saved);
    let masked_extra = saved.extra.as_deref().map(|extra| redact::text("extra", extra));
    body.conn_type == saved.conn_type
        && body.port.unwrap_or(0) == saved.port.unwrap_or(0)
        && is_equal(&body.host, saved.host.as_deref())
        && is_equal(&body.login, saved.login.as_deref())
        && is_equal(&body.schema, saved.schema.as_deref())
        && [saved.password.as_deref(), saved.password.as_ref().map(|_| masking::HIDDEN)]
            .into_iter()
            .any(|password| is_equal(&body.password, password))
        && [saved.extra.as_deref(), masked_extra.as_deref()].into_iter().any(|extra| is_equal(&body.extra, extra))
}

connection_body! {
    #[expect(dead_code, reason = "used for validation only")]
    ConnectionTestRequestBody {
        #[serde(default)]
        #[schemars(length(max = 50))]
        team_name: Option<String>,
        #[serde(default)]
        commit_on_success: bool,
        #[serde(default)]
        executor: Option<String>,
        #[serde(default)]
        queue: Option<String>,
    }
}

#[derive(Serialize, JsonSchema)]
pub struct ConnectionTestQueuedResponse {
    token: String,
    connection_id: String,
    state: String,
}

/// Always 403. In Airflow it queues a test, whose result the client polls.
pub async fn enqueue_test(_: Body<ConnectionTestRequestBody>) -> ApiResult<Accepted<ConnectionTestQueuedResponse>> {
    Err(test_is_refused())
}

const TEST_TOKEN_HEADER: &str = "Airflow-Connection-Test-Token";

query! { pub ConnectionTestQuery { Parameter::header(TEST_TOKEN_HEADER).required() } }

#[derive(Serialize, JsonSchema)]
pub struct AsyncConnectionTestResponse {
    token: String,
    connection_id: String,
    state: String,
    result_message: Option<String>,
    created_at: Stamp,
}

/// Always an error: no test is ever queued, so every token is unknown.
pub async fn get_test(
    _: QueryParams<ConnectionTestQuery>,
    headers: HeaderMap,
) -> JsonResult<AsyncConnectionTestResponse> {
    Err(unknown_test(&headers))
}

/// 404 in Airflow's words for an unknown token; 422 if the request has no token.
fn unknown_test(headers: &HeaderMap) -> ApiError {
    let Some(token) = headers.get(TEST_TOKEN_HEADER) else {
        return ApiError::unprocessable(&["header", TEST_TOKEN_HEADER], "missing", "Field required");
    };
    let detail = format!("No connection test found for token: `{}`", String::from_utf8_lossy(token.as_bytes()));
    ApiError::not_found(detail)
}

/// Creates nothing, because Airflow's default connections name services that do not exist here.
pub async fn create_defaults() -> NoContent {
    NoContent
}

/// Airflow's path segment for queued tests; a connection of that name cannot be read.
const ENQUEUE_WORD: &str = "enqueue-test";

fn test_is_refused() -> ApiError {
    ApiError::forbidden("Only the values of a saved connection can be tested, and not in a queue; save it first")
}

struct Connections<'a>(&'a Cipher);

impl Entities for Connections<'_> {
    const PLURAL: &'static str = "connections";
    const NAME_FIELDS: &'static [&'static str] = &["connection_id"];
    const OVERWRITE_RESETS: bool = false;

    async fn existing(&self, transaction: &Transaction<'_>, names: &[String]) -> ApiResult<Vec<String>> {
        Ok(connections::existing(transaction, names).await?)
    }

    fn check(body: bulk::Body) -> ApiResult<()> {
        Changes::<ConnectionBody>::new(body, &[]).map(drop)
    }

    async fn set(&self, transaction: &Transaction<'_>, body: bulk::Body) -> ApiResult<()> {
        let new: ConnectionBody = Changes::new(body, &[])?.values;
        Ok(connections::set(transaction, self.0, &new.into_connection()).await?)
    }

    async fn change(&self, transaction: &Transaction<'_>, body: bulk::Body, mask: &[String]) -> ApiResult<()> {
        let changes = Changes::<ConnectionBody>::new(body, mask)?;
        change(transaction, self.0, &changes.values.connection_id, &changes).await.map(drop)
    }

    async fn remove(&self, transaction: &Transaction<'_>, name: &str) -> ApiResult<()> {
        Ok(connections::delete(transaction, name).await?)
    }
}

pub async fn bulk(State(state): Shared, Body(body): Body<Bulk<ConnectionBody>>) -> JsonResult<BulkResponse> {
    bulk::run(&state.core, &Connections(&state.core.cipher), body).await
}
