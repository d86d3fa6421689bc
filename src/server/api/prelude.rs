//! The names that most handlers use.

pub use super::instance_path::{RunPath, TaskPath};
pub use super::views::Stamp;
pub use crate::app_state::{AppState, Shared};
pub use crate::http::api_error::{ApiError, ApiResult, JsonResult};
pub use crate::http::body::Body;
pub use crate::http::datastore::Datastore;
pub use crate::http::listing::Fields;
pub(crate) use crate::http::listing::{collection, view};
pub use crate::http::openapi::answers::{Created, NoContent};
pub(crate) use crate::http::query::query;
pub use crate::http::query::{Kind, Parameter, QueryParams};
pub use crate::http::request::{Id, Params, Segments};
pub use axum::Json;
pub use axum::extract::State;
pub use axum::http::StatusCode;
pub use deadpool_postgres::Transaction;
pub use jiff::Timestamp;
pub use leoflow_engine::model::keys::{InstanceKey, RunKey};
pub use leoflow_engine::model::state::{RunState, TaskState};
pub use leoflow_engine::store::list::filter::FieldTest;
pub use leoflow_engine::store::list::listing::Listing;
pub use leoflow_engine::store::{ReadFor, StoreError};
pub use leoflow_postgres::GenericClient;
pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
pub use serde_json::{Map, Value, json};
