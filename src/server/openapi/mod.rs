//! The REST API's own description, as OpenAPI has it: made of the types that the handlers take and give.

pub mod answers;
pub mod document;
pub mod operation;
pub mod routes;
