//! Response types that describe themselves in the OpenAPI document.

use super::operation::{Operation, Output, Schemas};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use std::marker::PhantomData;

/// 201 with the created object.
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Output for Created<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_answer::<T>(schemas, StatusCode::CREATED.as_u16());
    }
}

/// 202 with the accepted object.
pub struct Accepted<T>(pub T);

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Output for Accepted<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.set_answer::<T>(schemas, StatusCode::ACCEPTED.as_u16());
    }
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
