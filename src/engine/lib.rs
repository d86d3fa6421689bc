//! The engine: Airflow's objects (DAGs, runs, task instances, assets), their storage in Postgres, and the scheduler.

pub mod model;
pub mod planner;
pub mod schedule;
pub mod scheduler;
pub mod store;
