//! Response types that describe themselves in the OpenAPI document.

use super::operation::{JSON, Operation, Output, Schemas};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;
use std::convert::Infallible;
use std::marker::PhantomData;

/// Defines an object that is sent with another status than 200.
macro_rules! with_status {
    ($($(#[$doc:meta])* $name:ident $status:ident)*) => {
        $($(#[$doc])*
        pub struct $name<T>(pub T);

        impl<T: Serialize> IntoResponse for $name<T> {
            fn into_response(self) -> Response {
                (StatusCode::$status, Json(self.0)).into_response()
            }
        }

        impl<T: JsonSchema> Output for $name<T> {
            fn describe(operation: &mut Operation, schemas: &mut Schemas) {
                operation.set_answer::<T>(schemas, StatusCode::$status.as_u16());
            }
        })*
    };
}

with_status! {
    /// 201 with the created object.
    Created CREATED
    /// 202 with the accepted object.
    Accepted ACCEPTED
}

/// 204 without content.
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl Output for NoContent {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.success.0 = StatusCode::NO_CONTENT.as_u16();
    }
}

/// JSON of type `T`, serialized by the handler because it borrows from rows that the handler owns.
pub struct Written<T>(Response, PhantomData<fn() -> T>);

impl<T> Written<T> {
    /// Serializes `value`, which is a `T` apart from lifetimes.
    pub fn new(value: impl Serialize) -> Self {
        Self(Json(value).into_response(), PhantomData)
    }

    /// Writes an object: the fields of `fields`, which has at least one, and the field `name` with the value `json`,
    /// which is sent without a copy because it may have megabytes.
    pub fn with_field(fields: impl Serialize, name: &str, json: Bytes) -> Result<Self, serde_json::Error> {
        let mut head = serde_json::to_string(&fields)?;
        head.truncate(head.len().saturating_sub("}".len()));
        head += &format!(",{}:", serde_json::to_string(name)?);
        let parts = [head.into(), json, Bytes::from_static(b"}")];
        let length: usize = parts.iter().map(Bytes::len).sum();
        let headers = [(header::CONTENT_TYPE, JSON.to_owned()), (header::CONTENT_LENGTH, length.to_string())];
        let body = Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)));
        Ok(Self((headers, body).into_response(), PhantomData))
    }
}

impl<T> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: JsonSchema> Output for Written<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_answer::<T>(schemas, StatusCode::OK.as_u16());
    }
}

/// Plain text.
pub struct Plain;
/// JSON lines.
pub struct Lines;

/// A media type other than JSON.
pub trait Media {
    const TYPE: &'static str;
}

impl Media for Plain {
    const TYPE: &'static str = "text/plain";
}

impl Media for Lines {
    const TYPE: &'static str = "application/x-ndjson";
}

/// JSON of type `T` or text of another media type; the handler chooses.
pub struct Either<T, M>(Response, PhantomData<fn() -> (T, M)>);

impl<T: Serialize, M: Media> Either<T, M> {
    pub fn json(value: T) -> Self {
        Self(Json(value).into_response(), PhantomData)
    }

    /// Takes a body with its content type.
    pub fn text(body: impl IntoResponse) -> Self {
        Self(body.into_response(), PhantomData)
    }
}

impl<T, M> IntoResponse for Either<T, M> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: JsonSchema, M: Media> Output for Either<T, M> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_answer::<T>(schemas, StatusCode::OK.as_u16());
        operation.add_text_answer(M::TYPE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn a_large_field_is_sent_without_a_copy() {
        let value = Bytes::from(r#"{"n": 1.50}"#.to_owned());
        let response =
            Written::<Value>::with_field(json!({"key": "k"}), "value", value.clone()).unwrap().into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let length: usize = response.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
        let parts: Vec<Bytes> = response.into_body().into_data_stream().map(Result::unwrap).collect().await;
        assert_eq!(
            (parts.concat().as_slice(), parts.concat().len()),
            (&br#"{"key":"k","value":{"n": 1.50}}"#[..], length)
        );
        assert!(parts.iter().any(|part| part.as_ptr() == value.as_ptr()), "the same bytes");
    }
}
