//! Answers that say by their type what they are.

use super::operation::{Operation, Output, Schemas};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use std::marker::PhantomData;

/// 201, with what was made.
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Output for Created<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers::<T>(schemas, StatusCode::CREATED.as_u16());
    }
}

/// 202, with what is to be done.
pub struct Accepted<T>(pub T);

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Output for Accepted<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers::<T>(schemas, StatusCode::ACCEPTED.as_u16());
    }
}

/// 204.
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

/// JSON of that type that was written where what it is made of could still be borrowed.
pub struct Written<T>(Response, PhantomData<fn() -> T>);

impl<T> Written<T> {
    /// `value` is of the type `T`, but for its lifetime.
    pub fn of(value: impl Serialize) -> Self {
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
        operation.answers::<T>(schemas, StatusCode::OK.as_u16());
    }
}

/// Plain text, where the client asks for it.
pub struct Plain;
/// A line of JSON for each, where the client asks for them.
pub struct Lines;

/// A media type beside JSON.
pub trait Media {
    const TYPE: &'static str;
}

impl Media for Plain {
    const TYPE: &'static str = "text/plain";
}

impl Media for Lines {
    const TYPE: &'static str = "application/x-ndjson";
}

/// JSON of the type `T`, or a text of another media type, as the client asks.
pub struct Either<T, M>(Response, PhantomData<fn() -> (T, M)>);

impl<T: Serialize, M: Media> Either<T, M> {
    pub fn json(value: T) -> Self {
        Self(Json(value).into_response(), PhantomData)
    }

    /// A body that has its headers.
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
        operation.answers::<T>(schemas, StatusCode::OK.as_u16());
        operation.may_answer_text(M::TYPE);
    }
}
