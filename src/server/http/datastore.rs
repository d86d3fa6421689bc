//! A connection to the datastore, for handlers that need nothing else.

use super::api_error::ApiError;
use super::openapi::operation::Input;
use crate::state::Core;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use deadpool_postgres::Object;
use std::sync::Arc;

/// A pooled connection: 503 if the datastore is not available or all connections are in use.
pub struct Datastore(pub Object);

impl<S: Send + Sync> FromRequestParts<S> for Datastore
where
    Arc<Core>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(Arc::<Core>::from_ref(state).database.get().await?))
    }
}

impl Input for Datastore {}
