//! Bodies of PATCH requests.

use super::api_error::ApiError;
use super::body::fields_as;
use super::limits;
use super::openapi::operation::{Input, Operation, Presence, Schemas};
use super::query::UPDATE_MASK;
use super::request::Params;
use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The body of a PATCH, or an entity of a bulk update, with the fields to apply: those present, limited to the mask if
/// there is one. The parameter `update_mask` of a PATCH may be a comma-separated list or be repeated.
pub struct Changes<T> {
    pub values: T,
    fields: Vec<String>,
}

/// Returns true if the mask of an update names the field; an empty mask means all fields.
pub fn is_in_mask(mask: &[String], field: &str) -> bool {
    mask.is_empty() || mask.iter().any(|name| name == field)
}

impl<T: DeserializeOwned + JsonSchema> Changes<T> {
    /// Builds the changes; an empty mask means all fields.
    pub fn new(body: Map<String, Value>, mask: &[String]) -> Result<Self, ApiError> {
        let fields = body.keys().filter(|name| is_in_mask(mask, name)).cloned().collect();
        limits::check::<T>(&body)?;
        Ok(Self { values: fields_as(body)?, fields })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + JsonSchema> FromRequest<S> for Changes<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let params = Params::from_request_parts(&mut parts, state).await?;
        let body = Json::<Map<String, Value>>::from_request(Request::from_parts(parts, body), state).await;
        let mask: Vec<String> =
            params.all("update_mask").flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
        Self::new(body?.0, &mask)
    }
}

impl<T: JsonSchema> Input for Changes<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.parameters.push(UPDATE_MASK.value());
        operation.set_body::<T>(schemas, Presence::Required);
    }
}

impl<T> Changes<T> {
    /// Returns the new value if the field is to change, otherwise the old one.
    pub fn pick<V>(&self, field: &str, new: V, old: V) -> V {
        if self.fields.iter().any(|name| name == field) { new } else { old }
    }
}
