//! Errors as Airflow's API words them: `{"detail": …}`. What the client sees and what the log says
//! are two things.

use crate::engine::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fmt::Display;

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: Value,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, detail: impl Into<Value>) -> Self {
        Self { status, detail: detail.into(), retry_after_seconds: None }
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Not authenticated")
    }

    /// One entry of FastAPI's list of what is wrong with a request.
    pub fn unprocessable(location: &[&str], kind: &str, message: impl Display) -> Self {
        let entry = json!({"type": kind, "loc": location, "msg": message.to_string()});
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!([entry]))
    }

    pub fn too_many(seconds: u64) -> Self {
        let detail = format!("Too many attempts; try again in {seconds} s");
        Self { retry_after_seconds: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    pub fn unavailable(cause: &dyn Display) -> Self {
        eprintln!("datastore not available: {cause}");
        Self {
            retry_after_seconds: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "The datastore is not available")
        }
    }

    pub fn internal(cause: &dyn Display) -> Self {
        eprintln!("internal error: {cause}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
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
                let (name, key) = match *what {
                    "variable" => ("Variable", "key"),
                    _ => ("Connection", "connection_id"),
                };
                Self::new(StatusCode::NOT_FOUND, format!("The {name} with {key}: `{id}` was not found"))
            }
            StoreError::Invalid(message) => Self::unprocessable(&["body"], "value_error", message),
            StoreError::Cipher(_) | StoreError::Sealed { .. } => {
                eprintln!("{error}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            StoreError::Postgres(cause) => Self::unavailable(cause),
        }
    }
}

impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::from(error).into()
    }
}
