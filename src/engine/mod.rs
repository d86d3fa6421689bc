//! What Airflow calls its objects, in Postgres.

pub mod connections;
pub mod instance_key;
pub mod store;
pub mod variables;
