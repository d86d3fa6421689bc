//! The body of a PATCH.

use super::api_error::ApiError;
use super::body::bad_body;
use super::openapi::operation::{Input, Operation, Schemas};
use super::query::UPDATE_MASK;
use super::request::Params;
use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The body of a PATCH, and which of its fields count: those that it has, and of these the ones in `update_mask` where
/// the query has that, which may be one list with commas or come several times.
pub struct Changes<T> {
    pub values: T,
    fields: Vec<String>,
}

impl<T: DeserializeOwned> Changes<T> {
    /// All of the body's, without a mask.
    pub fn of(body: Map<String, Value>, mask: &[String]) -> Result<Self, ApiError> {
        let fields = body.keys().filter(|name| mask.is_empty() || mask.contains(name)).cloned().collect();
        let values = serde_json::from_value(Value::Object(body))
            .map_err(|error| ApiError::unprocessable(&["body"], "value_error", error))?;
        Ok(Self { values, fields })
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Changes<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let params = Params::from_request_parts(&mut parts, state).await?;
        let body = Json::<Map<String, Value>>::from_request(Request::from_parts(parts, body), state).await;
        let mask: Vec<String> =
            params.all("update_mask").flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
        Self::of(body.map_err(bad_body)?.0, &mask)
    }
}

impl<T: JsonSchema> Input for Changes<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.parameters.push(UPDATE_MASK.value());
        operation.takes::<T>(schemas, true);
    }
}

impl<T> Changes<T> {
    /// The new value of a field that counts, the old one otherwise.
    pub fn pick<V>(&self, field: &str, new: V, old: V) -> V {
        if self.fields.iter().any(|name| name == field) { new } else { old }
    }
}
