//! HTTP: requests, responses and errors in Airflow's form, access checks, the OpenAPI document.

pub(crate) mod api_error;
pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod changes;
pub(crate) mod datastore;
pub(crate) mod guard;
pub(crate) mod large;
mod limits;
pub(crate) mod listing;
pub(crate) mod openapi;
pub(crate) mod query;
pub(crate) mod request;
