//! Request bodies, read as FastAPI reads them: errors name missing and unknown fields.

use super::api_error::ApiError;
use super::limits;
use super::openapi::operation::{Input, Operation, Presence, Schemas};
use axum::Json;
use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::{Map, Value};
use std::convert;
use std::fmt;
use std::str::FromStr;

/// Largest body that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Marks a request whose body is in memory.
#[derive(Clone)]
struct BodyRead;

/// Reads the body of a request, up to its `DefaultBodyLimit`, unless it is in memory already. Timeouts of the datastore
/// begin afterwards: a slow client is not its fault.
pub async fn with_body_read(mut request: Request) -> Result<Request, ApiError> {
    if request.body().is_end_stream() || request.extensions_mut().insert(BodyRead).is_some() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
    let bytes = bytes.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(error.status(), "The request body is too large"),
        status => ApiError::new(status, "Failed to read the request body"),
    })?;
    Ok(Request::from_parts(parts, bytes.into()))
}

/// Middleware that reads the body before the inner handlers run.
pub async fn read_body(request: Request, next: Next) -> Result<Response, ApiError> {
    Ok(next.run(with_body_read(request).await?).await)
}

/// Deserializes a body. `T` should deny unknown fields where they must be refused.
pub fn body_as<T: DeserializeOwned>(body: Result<Json<Value>, JsonRejection>) -> Result<T, ApiError> {
    let Json(value) = body?;
    match value {
        Value::Object(map) => fields_as(map),
        Value::Null => Err(ApiError::unprocessable(&["body"], "missing", "Field required")),
        // serde would read a list as a body with all fields missing.
        _ => {
            let message = "Input should be a valid dictionary or object to extract fields from";
            Err(ApiError::unprocessable(&["body"], "model_attributes_type", message))
        }
    }
}

/// Deserializes a body that is an object, or an object inside a body.
pub fn fields_as<T: DeserializeOwned>(map: Map<String, Value>) -> Result<T, ApiError> {
    let fields = MapDeserializer::new(map.into_iter().map(|(name, value)| (name.clone(), Field { name, value })));
    T::deserialize(fields).map_err(|problem| match problem {
        Problem::Unknown(field) => {
            ApiError::unprocessable(&["body", &field], "extra_forbidden", "Extra inputs are not permitted")
        }
        Problem::Missing(field) => ApiError::unprocessable(&["body", field], "missing", "Field required"),
        Problem::Field(field, text) => ApiError::unprocessable(&["body", &field], "value_error", text),
        Problem::Value(text) => ApiError::unprocessable(&["body"], "value_error", text),
    })
}

/// A required body. `T` should deny unknown fields where they must be refused.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + JsonSchema> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        within_limits(Json::from_request(request, state).await).map(Self)
    }
}

/// Like `body_as`, and checks the limits that `T` declares.
fn within_limits<T: DeserializeOwned + JsonSchema>(body: Result<Json<Value>, JsonRejection>) -> Result<T, ApiError> {
    if let Ok(Json(Value::Object(fields))) = &body {
        limits::check::<T>(fields)?;
    }
    body_as(body)
}

impl<T: JsonSchema> Input for Body<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_body::<T>(schemas, Presence::Required);
    }
}

impl<T: JsonSchema> Input for OptionalBody<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_body::<Option<T>>(schemas, Presence::Optional);
    }
}

/// A body that may be omitted, even when the client sets a content type.
pub struct OptionalBody<T>(pub Option<T>);

impl<S: Send + Sync, T: DeserializeOwned + JsonSchema> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        match Json::from_bytes(&bytes) {
            Ok(Json(Value::Null)) => Ok(Self(None)),
            body => within_limits(body).map(|body| Self(Some(body))),
        }
    }
}

/// Deserializes a number that may be sent as text, as pydantic's lax mode accepts it.
pub fn lax<'de, D: Deserializer<'de>, T: FromStr + DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let invalid = |text: String| de::Error::custom(format!("Input should be a valid number, not {text}"));
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.trim().parse().map_err(|_| invalid(text)),
        other => serde_json::from_value(other.clone()).map_err(|_| invalid(other.to_string())),
    }
}

/// Like `lax`, for an optional number.
pub fn maybe_lax<'de, D: Deserializer<'de>, T: FromStr + DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    lax(value).map(Some).map_err(de::Error::custom)
}

/// Deserializes a nullable field; a present null becomes `Some(None)`.
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A body that is not JSON, of another content type, or not readable, such as too large.
impl From<JsonRejection> for ApiError {
    fn from(error: JsonRejection) -> Self {
        match error {
            JsonRejection::BytesRejection(error) => Self::new(error.status(), error.body_text()),
            other => Self::unprocessable(&["body"], "value_error", other.body_text()),
        }
    }
}

/// An error in a body. An error inside a field keeps only its text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("unknown field {0}")]
    Unknown(String),
    #[error("missing field {0}")]
    Missing(&'static str),
    #[error("{0}: {1}")]
    Field(String, String),
    #[error("{0}")]
    Value(String),
}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Value(text.to_string())
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(field.to_owned())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// A field of a body; its value deserializes as JSON does, and errors name the field.
struct Field {
    name: String,
    value: Value,
}

impl Field {
    fn read<T>(name: String, read: Result<T, serde_json::Error>) -> Result<T, Problem> {
        read.map_err(|error| Problem::Field(name, error.to_string()))
    }
}

impl IntoDeserializer<'_, Problem> for Field {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Delegates the listed methods to a JSON value made from the field's, because the requested type decides how `null`
/// and variant names are read.
macro_rules! delegate {
    ($read:expr, $($method:ident($($argument:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Problem> {
            Self::read(self.name, $read(self.value).$method($($argument,)* visitor))
        })*
    };
}

/// Converts `152.0` and `"152"` to 152, as pydantic's lax mode does.
fn whole(value: Value) -> Value {
    /// Whole numbers up to here are exact in a float.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    match &value {
        Value::Number(number) if !number.is_i64() && !number.is_u64() => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() <= LARGEST => Value::from(float as i64),
            _ => value,
        },
        Value::String(text) => text.trim().parse::<i64>().map_or(value, Value::from),
        _ => value,
    }
}

impl<'de> Deserializer<'de> for Field {
    type Error = Problem;

    delegate! {
        convert::identity,
        deserialize_any() deserialize_bool() deserialize_f32() deserialize_f64()
        deserialize_char() deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_unit() deserialize_seq() deserialize_map() deserialize_identifier()
        deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    delegate! {
        whole,
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Of(i32),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        at: Option<Timestamp>,
        #[serde(default)]
        kinds: Vec<Kind>,
        #[serde(default)]
        inner: Option<Box<Body>>,
        #[serde(default)]
        number: f64,
        #[serde(default)]
        count: Option<i32>,
        #[serde(default)]
        any: Option<Value>,
    }

    fn read(value: Value) -> Result<Body, Value> {
        let detail = |error: ApiError| serde_json::from_str(&error.message()).unwrap();
        body_as(Ok(Json(value))).map_err(detail)
    }

    #[test]
    fn reads_fields_like_serde_json() {
        let sent = json!({
            "name": "n", "at": "2026-01-01T00:00:00Z", "kinds": ["plain", {"of": 5}], "number": 1,
            "inner": {"name": "deep", "at": null},
        });
        let body = read(sent.clone()).unwrap();
        assert_eq!(body, serde_json::from_value(sent).unwrap());
        assert_eq!(body.kinds, [Kind::Plain, Kind::Of(5)]);
    }

    #[test]
    fn whole_numbers_are_read_as_pydantic_reads_them() {
        let count = |text: &str| {
            let body = format!(r#"{{"name": "n", "at": null, "count": {text}, "any": {text}}}"#);
            let body = read(serde_json::from_str(&body).unwrap()).ok()?;
            assert_eq!(body.any.map(|value| value.to_string()), Some(text.to_owned()), "other values stay as they are");
            body.count
        };
        for text in ["152", "152.0", "\"152\"", "\" 152 \""] {
            assert_eq!(count(text), Some(152), "{text}");
        }
        for text in ["152.5", "1e300", "\"many\"", "true"] {
            assert_eq!(count(text), None, "{text}");
        }
    }

    #[test]
    fn errors_name_missing_and_unknown_fields() {
        let missing = read(json!({"at": null})).unwrap_err();
        assert_eq!((&missing[0]["loc"], &missing[0]["type"]), (&json!(["body", "name"]), &json!("missing")));
        let unknown = read(json!({"name": "n", "nome": 1})).unwrap_err();
        assert_eq!((&unknown[0]["loc"], &unknown[0]["type"]), (&json!(["body", "nome"]), &json!("extra_forbidden")));
        for (wrong, kind) in [
            (json!({"name": 5}), "value_error"),
            (json!({"name": "n", "inner": {"x": 1}}), "value_error"),
            (json!([]), "model_attributes_type"),
            (json!("x"), "model_attributes_type"),
            (json!(null), "missing"),
        ] {
            assert_eq!(read(wrong).unwrap_err()[0]["type"], kind);
        }
    }
}
