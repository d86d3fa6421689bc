//! Errors in the form of Airflow's API: `{"detail": …}`. The text for the client and the text for the log are separate.

use crate::state::database::DatastoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use leoflow_engine::store::StoreError;
use leoflow_postgres::PgError;
use serde_json::{Value, json};
use std::fmt::Display;
use tokio::task::JoinError;
use tokio_postgres::error::SqlState;
use tracing::{error, warn};

/// An error response: its status, its `detail`, and optionally a `Retry-After` header.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: Value,
    retry_after_seconds: Option<u64>,
}

/// The result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;
/// The result of a handler that responds with JSON.
pub type JsonResult<T> = ApiResult<Json<T>>;

impl ApiError {
    pub fn new(status: StatusCode, detail: impl Into<Value>) -> Self {
        Self { status, detail: detail.into(), retry_after_seconds: None }
    }

    pub fn bad_request(detail: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn forbidden(detail: impl Into<Value>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn not_found(detail: impl Into<Value>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn conflict(detail: impl Into<Value>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Returns the conversion of a store error by an operation with its own words for 404.
    pub fn or_not_found(detail: impl FnOnce() -> String) -> impl FnOnce(StoreError) -> Self {
        |error| match error {
            StoreError::NotFound { .. } => Self::not_found(detail()),
            other => other.into(),
        }
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Not authenticated")
    }

    /// 422 in FastAPI's form: a list with one validation error. `location` names the field, such as `["body", "name"]`.
    pub fn unprocessable(location: &[&str], kind: &str, message: impl Display) -> Self {
        let entry = json!({"type": kind, "loc": location, "msg": message.to_string()});
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!([entry]))
    }

    pub fn too_many(seconds: u64) -> Self {
        let detail =
            format!("Too many attempts; try again in {seconds} s, or at once after: leoflow lite reset-password");
        Self { retry_after_seconds: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// The datastore does not answer. The cause is logged and not sent to the client.
    pub fn unavailable(cause: &dyn Display) -> Self {
        error!("datastore not available: {cause}");
        Self::retry_later("The datastore is not available")
    }

    /// All threads for large requests are in use.
    pub fn busy() -> Self {
        Self::retry_later("Too many requests at once; try again")
    }

    /// 503 with `Retry-After`.
    pub fn retry_later(detail: &str) -> Self {
        Self { retry_after_seconds: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    pub fn internal(cause: &dyn Display) -> Self {
        error!("internal error: {cause}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn message(&self) -> String {
        self.detail.as_str().map_or_else(|| self.detail.to_string(), str::to_owned)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"detail": self.detail}))).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::AlreadyExists { what: "variable", id } => {
                Self::new(StatusCode::CONFLICT, format!("The Variable with key: `{id}` already exists"))
            }
            StoreError::AlreadyExists { .. } => Self::new(
                StatusCode::CONFLICT,
                json!({"reason": "Unique constraint violation", "statement": "hidden", "orig_error": "hidden", "message": error.to_string()}),
            ),
            StoreError::NotFound { what, id } => {
                let detail = match *what {
                    "variable" => format!("The Variable with key: `{id}` was not found"),
                    "connection" => format!("The Connection with connection_id: `{id}` was not found"),
                    "dag" => format!("The Dag with ID: `{id}` was not found"),
                    "xcom" => format!("XCom entry with key: `{id}` not found"),
                    "import error" => format!("The ImportError with import_error_id: `{id}` was not found"),
                    _ => capitalised(&error.to_string()),
                };
                Self::new(StatusCode::NOT_FOUND, detail)
            }
            StoreError::Busy(message) => Self::new(StatusCode::CONFLICT, message.as_str()),
            StoreError::Invalid(message) => Self::unprocessable(&["body"], "value_error", message),
            StoreError::UnknownValue { .. } | StoreError::Unreadable { .. } => Self::internal(&error),
            StoreError::Cipher(_) | StoreError::Sealed { .. } => {
                warn!("{}", error);
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            // Postgres resolved a deadlock by aborting this transaction; nothing was changed.
            StoreError::Postgres(PgError::Query(cause)) if cause.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                Self::new(StatusCode::CONFLICT, "Another transaction changed the same data at the same time; try again")
            }
            // The statement or its data is wrong, so a retry would fail too.
            StoreError::Postgres(PgError::Query(cause)) if is_statement_error(cause) => Self::internal(&error),
            StoreError::Postgres(cause) if cause.is_damage() => {
                error!("the datastore is damaged: {cause}");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!(
                        "The datastore is damaged: {cause}. Restore a backup: leoflow lite restore --input FILE \
                         --force (leoflow lite backups list shows them)"
                    ),
                )
            }
            StoreError::Postgres(cause) => Self::unavailable(cause),
        }
    }
}

/// True for SQLSTATE classes 22, 23 and 42: errors in data, constraints and query syntax.
fn is_statement_error(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| ["22", "23", "42"].contains(&&state.code()[..2]))
}

/// Makes the first letter a capital.
pub(super) fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// A thread or task of this process has panicked.
impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        Self::internal(&error)
    }
}

impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<DatastoreError> for ApiError {
    fn from(error: DatastoreError) -> Self {
        match error {
            DatastoreError::Store(error) => error.into(),
            // Logged where the connection failed.
            DatastoreError::Busy | DatastoreError::Unavailable(_) => Self::retry_later(&error.to_string()),
        }
    }
}
