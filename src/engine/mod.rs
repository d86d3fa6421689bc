//! What Airflow calls its objects, in Postgres, and what happens next with them.

pub mod dag;
pub mod dag_check;
pub mod keys;
pub mod length;
mod param_order;
pub mod params;
pub mod planner;
pub mod schedule;
pub mod scheduler;
pub mod state;
pub mod store;
