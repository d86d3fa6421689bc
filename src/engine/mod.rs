//! What Airflow calls its objects, in Postgres, and what happens next with them.

pub mod connections;
pub mod dag;
pub mod dags;
pub mod events;
pub mod instance_key;
pub mod instances;
pub mod plan;
pub mod runs;
pub mod scheduler;
pub mod state;
pub mod store;
pub mod tick;
pub mod tries;
pub mod variables;
pub mod xcoms;
