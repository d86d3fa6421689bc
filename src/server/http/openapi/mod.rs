//! The OpenAPI document of the REST API, generated from the types of its handlers.

pub mod answers;
pub mod document;
mod nullable;
pub mod operation;
pub mod routes;
