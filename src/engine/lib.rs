//! The engine: Airflow's objects (DAGs, runs, task instances, assets), their storage in Postgres, and the scheduler.

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
